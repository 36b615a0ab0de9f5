"""The engines' metrics, which the training controller reads once a step, under the guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from openrlhf_mtp.config.settings.mtp import GuardSettings
from openrlhf_mtp.rollout.guard import AcceptanceGuard, Alarm
from openrlhf_mtp.rollout.stats import EngineCounters, generated, rollout_metrics
from openrlhf_mtp.runlog.agreement import gap_metrics


def fetch_counters(engines: Sequence[Any], *, take_ended: bool = False) -> list[EngineCounters]:
    """Ask every rollout actor for its counters; `take_ended` is for the one caller that measures the steps."""
    import ray

    asked = [engine.rollout_stats.remote(take_ended=take_ended) for engine in engines]
    return [EngineCounters.from_dict(counts) for counts in ray.get(asked)]


def count_generated(engines: Sequence[Any]) -> tuple[int, int]:
    """Tokens sampled and requests ended since the engines started; a step's measurement is not affected."""
    return generated(fetch_counters(engines))


_fetch_and_take = partial(fetch_counters, take_ended=True)


class EngineMonitor:
    """Differences of the engines' counters between calls, as metrics.

    It takes the responses that ended from the engines, so a run has one.

    Args:
        engines: Ray handles of `MTPRolloutActor`s.
        settings: when to say that drafts are no longer accepted.
        fetch: how to read the counters; a test gives its own.
    """

    def __init__(
        self,
        engines: Sequence[Any],
        settings: GuardSettings,
        fetch: Callable[[Sequence[Any]], list[EngineCounters]] = _fetch_and_take,
    ) -> None:
        self.engines = engines
        self.guard = AcceptanceGuard(settings)
        self._fetch = fetch
        self._last = fetch(engines)

    def measure(self, rollout_seconds: float, trained: Mapping[str, float] | None = None) -> dict[str, float]:
        """Metrics since the last call.

        Args:
            rollout_seconds: wall time of the step's generation; 0 discards what was counted (an evaluation).
            trained: what the trainer measured on the same responses; with it come the gaps to it.
        """
        now = self._fetch(self.engines)
        deltas = [later.since(earlier) for later, earlier in zip(now, self._last, strict=True)]
        self._last = now
        if rollout_seconds <= 0:
            return {}
        row = rollout_metrics(deltas, wall_seconds=rollout_seconds)
        return {**row, **gap_metrics({**(trained or {}), **row})}

    def check(self, step: int, row: Mapping[str, float]) -> Alarm | None:
        """Return the guard's alarm about a step's row; call it after the row is written, which is the evidence.

        Args:
            step: for the message.
            row: the step's metrics, the engines' and the trainer's (`spec/logprob_gap` has a limit, too).
        """
        return self.guard.update(step, row)
