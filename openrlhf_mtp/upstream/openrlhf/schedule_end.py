"""Past its planned end a learning-rate schedule stays where it ended. Checked on openrlhf 0.11.2.

The schedules of transformers are functions of the step that say nothing about steps after the last: a cosine rises
again. A run takes such steps when it continues with more or other data than its schedule was made for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch


def held_at(last: int, rate: Callable[[int], float]) -> Callable[[int], float]:
    """A schedule that stays at what it is at step `last`."""

    def rate_until_end(step: int) -> float:
        return rate(min(step, last))

    return rate_until_end


def _hold_the_end(module: ModuleType) -> None:
    get_scheduler = module.get_scheduler

    @functools.wraps(get_scheduler)
    def scheduler_with_end(name: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        scheduler = get_scheduler(name, optimizer, *args, **kwargs)
        last = kwargs.get("num_training_steps")
        if last is not None and hasattr(scheduler, "lr_lambdas"):
            scheduler.lr_lambdas = [held_at(last, rate) for rate in scheduler.lr_lambdas]
        return scheduler

    module.get_scheduler = scheduler_with_end  # type: ignore[attr-defined]


PATCH = Patch(
    name="learning-rate schedules have an end",
    target="openrlhf.utils.deepspeed.deepspeed",
    touches=("get_scheduler",),
    reason="a cosine rises again after its last planned step",
    versions="openrlhf 0.11.2, transformers 5.15.0",
    apply=_hold_the_end,
    probe=lambda module: module.get_scheduler.__code__.co_name == "scheduler_with_end",
)
