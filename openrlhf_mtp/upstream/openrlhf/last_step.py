"""Take the last optimizer step of a rollout although it is smaller than the others. Checked on openrlhf 0.11.2.

The last rollout of an episode has the prompts that are left over. OpenRLHF drops its last micro-batch when that is not
full, and DeepSpeed takes a step after a fixed number of micro-batches only: what was left over had its gradient added
to the next rollout's first update, and was logged as a step without being one. Here a step ends where OpenRLHF's own
window of micro-batches ends, over which it normalizes the loss; for full windows that is what DeepSpeed counts to.

Every rank must bring the same number of samples (`training.controller.experience` sees to it).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.openrlhf.optimizer_step import StepInfo, StepWindows, Windows, with_windows
from openrlhf_mtp.upstream.patching import Patch

COMPLETES = "completes_step"
"""Attribute of OpenRLHF's strategy: whether the micro-batch in hand is its optimizer step's last; None if unknown."""


def marking_ends(iterate: Windows) -> StepWindows:
    """`iter_grad_accum_global_norm` with `StepInfo`, telling the strategy whether each micro-batch ends a step."""
    windows = with_windows(iterate)

    @functools.wraps(iterate)
    def iterate_marking_ends(
        items: Iterable[Any], strategy: Any, *args: Any
    ) -> Iterator[tuple[Any, StepInfo]]:
        try:
            for item, info in windows(items, strategy, *args):
                setattr(strategy, COMPLETES, info.completes_step)
                yield item, info
        finally:
            setattr(strategy, COMPLETES, None)

    return iterate_marking_ends


def _step_where_told(module: ModuleType) -> None:
    strategy = module.DeepspeedStrategy
    backward, average = strategy.backward, strategy.moving_average

    @functools.wraps(backward)
    def backward_to_the_end(self: Any, loss: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        completes = getattr(self, COMPLETES, None)
        if completes is not None:
            engine = model.model if isinstance(model, module.Actor) else model
            engine.set_gradient_accumulation_boundary(completes)
        backward(self, loss, model, *args, **kwargs)

    @functools.wraps(average)
    def average_after_steps(self: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(self, COMPLETES, None) is not False:
            average(self, *args, **kwargs)

    strategy.backward, strategy.moving_average = backward_to_the_end, average_after_steps


def _iterate_to_the_end(module: ModuleType) -> None:
    """In a trainer's module: the last micro-batch is kept, and each one's place in its optimizer step is known."""
    loader = module.DataLoader

    @functools.wraps(loader, updated=())
    def loader_of_all(*args: Any, **kwargs: Any) -> Any:
        return loader(*args, **{**kwargs, "drop_last": False})

    module.DataLoader = loader_of_all  # type: ignore[attr-defined]
    module.iter_grad_accum_global_norm = marking_ends(module.iter_grad_accum_global_norm)  # type: ignore[attr-defined]


@contextmanager
def _set(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within this context an attribute has another value."""
    usual = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, usual)


def _plan_all_samples(module: ModuleType) -> None:
    buffer = module.NaiveReplayBuffer
    plan = buffer.setup_dynamic_batch

    @functools.wraps(plan)
    def plan_all(self: Any, strategy: Any) -> None:
        """OpenRLHF plans full optimizer steps only; what is left is planned as one more, by itself."""
        plan(self, strategy)
        planned = sum(len(indices) for indices in self.dynamic_indices)
        left = self.items[planned:]
        if not left:
            return
        first = {name: list(getattr(self, name)) for name in _PLAN}
        args, samples = strategy.args, len(left) * strategy.ds_device_mesh["dp"].size()
        with (
            _set(self, "items", left),
            _set(args.train, "batch_size", samples),
            _set(args.rollout, "batch_size", samples),  # no step is planned for less than a rollout
        ):
            plan(self, strategy)
        self.dynamic_indices = [[planned + index for index in indices] for indices in self.dynamic_indices]
        for name, steps in first.items():
            setattr(self, name, [*steps, *getattr(self, name)])

    buffer.setup_dynamic_batch = plan_all


_PLAN = (
    "dynamic_indices",
    "dynamic_sample_loss_scale",
    "dynamic_batch_num_tokens",
    "dynamic_global_batch_size",
    "dynamic_optimizer_step",
)


def _is(module: ModuleType, path: str, name: str) -> bool:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return bool(found.__code__.co_name == name)


def _patch(name: str, target: str, apply: Callable[[ModuleType], None], live: dict[str, str]) -> Patch:
    """A patch that puts functions of ours into places of a module.

    Args:
        live: place -> the function's name there.
    """
    return Patch(
        name=name,
        target=target,
        touches=tuple(live),
        reason="the last, smaller rollout of an episode would leave its gradient to the next one's first update",
        versions="openrlhf 0.11.2, deepspeed 0.19.6",
        apply=apply,
        probe=lambda module: all(_is(module, path, function) for path, function in live.items()),
    )


PATCHES: tuple[Patch, ...] = (
    _patch(
        "an optimizer step ends where it is marked",
        "openrlhf.utils.deepspeed.deepspeed",
        _step_where_told,
        {
            "DeepspeedStrategy.backward": "backward_to_the_end",
            "DeepspeedStrategy.moving_average": "average_after_steps",
        },
    ),
    *(
        _patch(
            f"the {role} trains on the last micro-batch",
            f"openrlhf.trainer.ray.ppo_{role}",
            _iterate_to_the_end,
            {"DataLoader": "loader_of_all", "iter_grad_accum_global_norm": "iterate_marking_ends"},
        )
        for role in ("actor", "critic")
    ),
    _patch(
        "dynamic batches of all samples",
        "openrlhf.trainer.ppo_utils.replay_buffer",
        _plan_all_samples,
        {"NaiveReplayBuffer.setup_dynamic_batch": "plan_all"},
    ),
)
