"""Add a term to the loss that OpenRLHF's training step back-propagates. Checked on openrlhf 0.11.2.

The training step puts its loss together (policy loss, KL, auxiliary loss, entropy bonus) and hands it to
`strategy.backward` in one piece. Added there, a term is in whatever else is switched on; added to one of the parts it
would be lost with it, as OCC's public code loses its MTP term when an entropy bonus is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def added_to_backward(strategy: Any, term: Callable[[], Tensor | None]) -> Iterator[None]:
    """Within this context the policy's backward runs on its loss plus `term()`.

    Args:
        strategy: OpenRLHF's DeepSpeed strategy.
        term: called when the loss is complete; None adds nothing.
    """
    backward = strategy.backward

    def backward_with_term(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        extra = term()
        backward(loss if extra is None else loss + extra, *args, **kwargs)

    strategy.backward = backward_with_term
    try:
        yield
    finally:
        del strategy.backward  # the class's own method again
