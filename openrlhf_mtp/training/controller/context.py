"""The context of a run beyond OpenRLHF's arguments; it travels to our Ray actors as `args.run`, beside `args.mtp`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Alarm(Protocol):
    """An alarm of the monitor."""

    @property
    def text(self) -> str:
        """The alarm's words for the user."""
        ...

    @property
    def stops(self) -> bool:
        """Whether the run ends with it."""
        ...


class RolloutMonitor(Protocol):
    """The rollout side as the controller sees it; training and rollout do not import each other."""

    def measure(self, rollout_seconds: float, trained: Mapping[str, float] | None = None) -> dict[str, float]:
        """Metrics of the engines since the last call.

        Args:
            rollout_seconds: wall time of the generation; 0 discards what was counted (an evaluation).
            trained: what the trainer measured on the same responses, to be held against the engines' acceptance.
        """
        ...

    def check(self, step: int, row: Mapping[str, float]) -> Alarm | None:
        """Look at a step's metrics: an alarm when acceptance has collapsed or the log-prob gap is above its limit."""
        ...


@dataclass(frozen=True)
class RunContext:
    """The context of a run that our Ray actors are given.

    Attributes:
        run_folder: where rows, figures and checkpoints go.
        monitor_factory: makes the run's one monitor from the engine handles, in the controller's process.
        count_generated: tokens sampled and requests ended since the engines started, from their handles; the monitor
            is not affected.
        own_sync: weights reach the engines by `openrlhf_mtp.sync`; false leaves them to OpenRLHF where it can
            (`sync.transport.uses_own_sync`).
        engine_threads: that each worker of an engine computes with; None leaves it to Ray.
    """

    run_folder: str
    monitor_factory: Callable[[list[Any]], RolloutMonitor]
    count_generated: Callable[[list[Any]], tuple[int, int]]
    own_sync: bool = True
    engine_threads: int | None = None
