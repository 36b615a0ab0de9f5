"""From vLLM's counters and the drafts of ended responses to a step's metrics. All but `read_counters` is pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from openrlhf_mtp.rollout.ended_responses import EndedResponses, acceptance_metrics
from openrlhf_mtp.runlog import metrics


@dataclass(frozen=True)
class EngineCounters:
    """Cumulative counts of one engine, or their difference between two moments.

    Attributes:
        generation_tokens: tokens generated.
        busy_seconds: time during which at least one request ran.
        finished_requests: requests that ended, each sample of a prompt for itself.
        ended: drafts of the responses that ended since the last reading; not cumulative.
    """

    generation_tokens: int
    busy_seconds: float
    finished_requests: int = 0
    ended: EndedResponses = field(default_factory=EndedResponses)

    @classmethod
    def from_dict(cls, counts: dict[str, Any]) -> Self:
        return cls(**{**counts, "ended": EndedResponses.from_dict(counts["ended"])})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def since(self, earlier: EngineCounters) -> EngineCounters:
        """The counts since `earlier`.

        Raises:
            ValueError: a counter went backwards, so that the engine was restarted in between.
        """
        delta = EngineCounters(
            generation_tokens=self.generation_tokens - earlier.generation_tokens,
            busy_seconds=self.busy_seconds - earlier.busy_seconds,
            finished_requests=self.finished_requests - earlier.finished_requests,
            ended=self.ended,
        )
        if delta.generation_tokens < 0:
            raise ValueError(
                f"an engine's counters went backwards, from {earlier} to {self}: was it restarted?"
            )
        return delta


def total(counters: Sequence[EngineCounters]) -> EngineCounters:
    """The sum over engines; their busy times are added, so divide by wall time for a rate of all engines."""
    return EngineCounters(
        generation_tokens=sum(c.generation_tokens for c in counters),
        busy_seconds=sum(c.busy_seconds for c in counters),
        finished_requests=sum(c.finished_requests for c in counters),
        ended=EndedResponses.joined([c.ended for c in counters]),
    )


def generated(counters: Sequence[EngineCounters]) -> tuple[int, int]:
    """Tokens sampled and requests ended, over all engines."""
    return sum(c.generation_tokens for c in counters), sum(c.finished_requests for c in counters)


def rollout_metrics(engines: Sequence[EngineCounters], *, wall_seconds: float) -> dict[str, float]:
    """Metrics of a step from each engine's difference of counters.

    Args:
        engines: what each engine counted during the step, in the order of the engines.
        wall_seconds: wall time of the step's generation.
    """
    everything = total(engines)
    row = acceptance_metrics(everything.ended)
    row[metrics.PERF_ROLLOUT_TOKENS] = float(everything.generation_tokens)
    if wall_seconds > 0:
        row[metrics.PERF_ROLLOUT_TOK_S] = everything.generation_tokens / wall_seconds
    for number, counters in enumerate(engines):
        if counters.busy_seconds > 0:
            name = metrics.engine_metric(metrics.PERF_ROLLOUT_TOK_S, number)
            row[name] = counters.generation_tokens / counters.busy_seconds
    return row


def read_counters(*, busy_seconds: float) -> EngineCounters:
    """This process's vLLM counters.

    Args:
        busy_seconds: the caller's own measurement, passed through.
    """
    from vllm.v1.metrics.reader import Counter, get_metrics_snapshot

    counts: dict[str, int] = {}
    for metric in get_metrics_snapshot():
        if isinstance(metric, Counter):
            counts[metric.name] = counts.get(metric.name, 0) + metric.value
    return EngineCounters(
        generation_tokens=counts["vllm:generation_tokens"],
        busy_seconds=busy_seconds,
        finished_requests=counts.get("vllm:request_success", 0),
    )
