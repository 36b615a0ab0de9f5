"""Time the parts of a training step: the policy's forward pass, its backward pass, and the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from openrlhf_mtp.upstream.replacement import Method, Wrapping

_REASON = "OpenRLHF's trainer measures whole steps alone, and a benchmark splits them by part"

FORWARD = Wrapping(
    name="a benchmark times the policy's forward pass",
    target="openrlhf.models.actor",
    touches=("Actor.forward",),
    reason=_REASON,
    versions="openrlhf 0.11.2",
)
BACKWARD = Wrapping(
    name="a benchmark times the policy's backward pass",
    target="deepspeed.runtime.engine",
    touches=("DeepSpeedEngine.backward",),
    reason=_REASON,
    versions="deepspeed 0.19.6",
)
UPDATE = Wrapping(
    name="a benchmark times the policy's update",
    target="openrlhf.utils.deepspeed.deepspeed",
    touches=("DeepspeedStrategy.optimizer_step",),
    reason=_REASON,
    versions="openrlhf 0.11.2",
)


@contextmanager
def timed_step(trainer: Any, timing: Callable[[str], Callable[[Method], Method]]) -> Iterator[None]:
    """Within this context the three parts of every training step are timed.

    Args:
        trainer: OpenRLHF's `ActorPPOTrainer`.
        timing: makes of a part's name (forward, backward, update) what times a method for it.
    """
    parts = (
        (FORWARD, trainer.actor, "forward"),
        (BACKWARD, trainer.actor.model, "backward"),
        (UPDATE, trainer.strategy, "update"),
    )
    with ExitStack() as stack:
        for wrapping, owner, part in parts:
            stack.enter_context(wrapping.around(owner, timing(part)))
        yield
