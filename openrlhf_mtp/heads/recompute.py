"""Recomputation for the backward pass that leaves out what costs most: `torch.utils.checkpoint` with results it keeps.

A checkpointed function keeps its inputs and runs again when its gradient is wanted. Attention over long contexts is
most of a chain's work and its result is small, so the second run takes it over from the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import TracebackType

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint


class Kept:
    """Results of a function's first run for its second run, in the order in which it asks for them.

    As a context it is the second run. Between the runs the tensors belong to autograd (`_Owner`), which frees them with
    the graph and shows them to hooks on saved tensors.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._rest: Iterator[Tensor] | None = None

    def pair(self, compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Compute two tensors, or in the second run take them over."""
        if self._rest is not None:
            return next(self._rest), next(self._rest)
        pair = compute()
        self.tensors += pair
        return pair

    def __enter__(self) -> None:
        self._rest = iter(self.tensors)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rest, self.tensors = None, []


Recomputable = Callable[..., tuple[Tensor, ...]]
"""A function of `Kept` or None, and tensors."""


class _Owner(torch.autograd.Function):
    """The identity of a function's outputs. It saves what was kept, and hands it out before the second run."""

    @staticmethod
    def forward(ctx: FunctionCtx, kept: Kept, outputs: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tensors[outputs:])
        ctx.kept = kept  # type: ignore[attr-defined]
        kept.tensors = []
        return tensors[:outputs]

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors  # type: ignore[attr-defined]
        ctx.kept.tensors = list(tensors)  # type: ignore[attr-defined]
        return None, None, *grads, *(None for _ in tensors)


def recomputed(function: Recomputable, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run `function(kept, *inputs)` so that backward keeps its inputs and `kept` alone.

    The second run happens in backward: what the function reads besides its inputs, parameters included, must be the
    same objects then (`constant.constant` instead of `torch.func.functional_call`).
    """
    if not torch.is_grad_enabled():
        return function(None, *inputs)
    kept = Kept()
    outputs: tuple[Tensor, ...] = checkpoint(
        function,
        kept,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing here is random
        context_fn=lambda: (nullcontext(), kept),
    )
    owned: tuple[Tensor, ...] = _Owner.apply(  # type: ignore[no-untyped-call]
        kept, len(outputs), *outputs, *kept.tensors
    )
    return owned
