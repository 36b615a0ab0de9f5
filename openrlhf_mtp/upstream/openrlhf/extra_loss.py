"""Add a term to the loss that OpenRLHF's training step back-propagates.

The training step puts its loss together (policy loss, KL, auxiliary loss, entropy bonus) and hands it to
`strategy.backward` in one piece. Added there, a term is in whatever else is switched on; added to one of the parts it
would be lost with it, as OCC's public code loses its MTP term when an entropy bonus is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from openrlhf_mtp.upstream.replacement import Method, Wrapping

BACKWARD = Wrapping(
    name="the training step's loss has a term of ours",
    target="openrlhf.utils.deepspeed.deepspeed",
    touches=("DeepspeedStrategy.backward",),
    reason="OpenRLHF's training step puts its loss together and back-propagates it without asking for another term",
    versions="openrlhf 0.11.2",
)


@contextmanager
def added_to_backward(strategy: Any, term: Callable[[], Tensor | None]) -> Iterator[None]:
    """Within this context the policy's backward runs on its loss plus `term()`.

    Args:
        strategy: OpenRLHF's DeepSpeed strategy.
        term: called when the loss is complete; None adds nothing.
    """

    def with_term(backward: Method) -> Method:
        def backward_with_term(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            extra = term()
            backward(loss if extra is None else loss + extra, *args, **kwargs)

        return backward_with_term

    with BACKWARD.around(strategy, with_term):
        yield
