"""The memory that autograd keeps between a forward pass and its backward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class KeptMemory:
    """Counts what is saved for backward: each storage once, and whole if a view of it is saved.

    Args:
        others: tensors that are there anyway, such as parameters; they are not counted.
    """

    def __init__(self, others: Iterable[Tensor] = ()) -> None:
        self._others = {_address(tensor) for tensor in others}
        self._bytes: dict[int, int] = {}

    @contextmanager
    def counting(self) -> Iterator[KeptMemory]:
        """Count what is saved in this context. Its graph must stay alive: a freed address is given away again."""
        with saved_tensors_hooks(self._pack, lambda tensor: tensor):
            yield self

    def _pack(self, tensor: Tensor) -> Tensor:
        if (address := _address(tensor)) not in self._others:
            self._bytes[address] = tensor.untyped_storage().nbytes()
        return tensor

    @property
    def bytes(self) -> int:
        """All that was saved so far."""
        return sum(self._bytes.values())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
