"""What an expression holds at once, without a memory meter."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return made


class Peak(TorchDispatchMode):
    """Remembers the most bytes that the tensors which operations make hold at once, each memory once."""

    nbytes = 0

    def __init__(self) -> None:
        super().__init__()
        self._made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self._made += [
            weakref.ref(tensor)
            for tensor in (made if isinstance(made, (tuple, list)) else [made])
            if isinstance(tensor, torch.Tensor)
        ]
        self._made = [ref for ref in self._made if ref() is not None]
        alive = [tensor.untyped_storage() for ref in self._made if (tensor := ref()) is not None]
        self.nbytes = max(self.nbytes, sum({each.data_ptr(): each.nbytes() for each in alive}.values()))
        return made
