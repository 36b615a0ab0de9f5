"""What the training controller asks of the engines once a step: their metrics, under the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from openrlhf_mtp.config.mtp import GuardSettings
from openrlhf_mtp.rollout.guard import AcceptanceGuard
from openrlhf_mtp.rollout.stats import EngineCounters, rollout_metrics


def fetch_counters(engines: Sequence[Any]) -> list[EngineCounters]:
    """Ask every rollout actor for its counters."""
    import ray

    return [
        EngineCounters.from_dict(counts) for counts in ray.get([e.rollout_stats.remote() for e in engines])
    ]


class EngineMonitor:
    """Differences of the engines' counters between calls, as metrics.

    Args:
        engines: Ray handles of `MTPRolloutActor`s.
        settings: when to stop the run.
        fetch: how to read the counters; a test gives its own.
    """

    def __init__(
        self,
        engines: Sequence[Any],
        settings: GuardSettings,
        fetch: Callable[[Sequence[Any]], list[EngineCounters]] = fetch_counters,
    ) -> None:
        self.engines = engines
        self.guard = AcceptanceGuard(settings)
        self._fetch = fetch
        self._last = fetch(engines)

    def measure(
        self, step: int, rollout_seconds: float, trainer: Mapping[str, float] = MappingProxyType({})
    ) -> dict[str, float]:
        """Metrics since the last call; `rollout_seconds` = 0 discards what was counted (an evaluation).

        Args:
            step: the step they belong to, for messages.
            rollout_seconds: wall time of the step's generation.
            trainer: metrics the trainer has measured already; the guard watches `spec/logprob_gap` among them.

        Raises:
            AcceptanceCollapse: see `rollout.guard`.
        """
        now = self._fetch(self.engines)
        deltas = [later.since(earlier) for later, earlier in zip(now, self._last, strict=True)]
        self._last = now
        if rollout_seconds == 0:
            return {}
        row = rollout_metrics(deltas, wall_seconds=rollout_seconds)
        self.guard.update(step, {**trainer, **row})
        return row
