"""From vLLM's cumulative counters to the metrics of a step. Everything but `read_counters` is pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from openrlhf_mtp.rollout.ended_responses import EndedResponses, by_response_metrics
from openrlhf_mtp.runlog import metrics


@dataclass(frozen=True)
class EngineCounters:
    """Cumulative counts of one engine, or their difference between two moments.

    Attributes:
        num_drafts: drafts verified; one is one target forward for one sequence.
        num_draft_tokens: tokens drafted.
        num_accepted_tokens: drafted tokens the target accepted.
        accepted_per_depth: of those, how many at depth 1, 2, ..., k; empty without speculation.
        generation_tokens: tokens generated.
        busy_seconds: time during which at least one request ran.
        finished_requests: requests that ended, each sample of a prompt for itself.
        ended: drafts of the responses that ended since the last reading; not cumulative.
    """

    num_drafts: int
    num_draft_tokens: int
    num_accepted_tokens: int
    accepted_per_depth: tuple[int, ...]
    generation_tokens: int
    busy_seconds: float
    finished_requests: int = 0
    ended: EndedResponses = field(default_factory=EndedResponses)

    @classmethod
    def from_dict(cls, counts: dict[str, Any]) -> Self:
        ended = EndedResponses.from_dict(counts["ended"])
        return cls(**{**counts, "accepted_per_depth": tuple(counts["accepted_per_depth"]), "ended": ended})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def since(self, earlier: EngineCounters) -> EngineCounters:
        """The counts since `earlier`.

        Raises:
            ValueError: a counter went backwards, so that the engine was restarted in between.
        """
        before = earlier.accepted_per_depth or (0,) * len(self.accepted_per_depth)
        delta = EngineCounters(
            num_drafts=self.num_drafts - earlier.num_drafts,
            num_draft_tokens=self.num_draft_tokens - earlier.num_draft_tokens,
            num_accepted_tokens=self.num_accepted_tokens - earlier.num_accepted_tokens,
            accepted_per_depth=tuple(a - b for a, b in zip(self.accepted_per_depth, before, strict=True)),
            generation_tokens=self.generation_tokens - earlier.generation_tokens,
            busy_seconds=self.busy_seconds - earlier.busy_seconds,
            finished_requests=self.finished_requests - earlier.finished_requests,
            ended=self.ended,
        )
        if delta.generation_tokens < 0 or delta.num_drafts < 0:
            raise ValueError(
                f"an engine's counters went backwards, from {earlier} to {self}: was it restarted?"
            )
        return delta


def total(counters: Sequence[EngineCounters]) -> EngineCounters:
    """The sum over engines; their busy times are added, so divide by wall time for a rate of all engines."""
    depths = max(len(c.accepted_per_depth) for c in counters)
    return EngineCounters(
        num_drafts=sum(c.num_drafts for c in counters),
        num_draft_tokens=sum(c.num_draft_tokens for c in counters),
        num_accepted_tokens=sum(c.num_accepted_tokens for c in counters),
        accepted_per_depth=tuple(
            sum(c.accepted_per_depth[j] for c in counters if c.accepted_per_depth) for j in range(depths)
        ),
        generation_tokens=sum(c.generation_tokens for c in counters),
        busy_seconds=sum(c.busy_seconds for c in counters),
        finished_requests=sum(c.finished_requests for c in counters),
        ended=EndedResponses.joined([c.ended for c in counters]),
    )


def generated(counters: Sequence[EngineCounters]) -> tuple[int, int]:
    """Tokens sampled and requests ended, over all engines."""
    return sum(c.generation_tokens for c in counters), sum(c.finished_requests for c in counters)


def mean_acceptance_length(counters: EngineCounters) -> float:
    """Tokens per target forward: the accepted drafts and one token that the target itself gives."""
    assert counters.num_drafts > 0, "no draft was verified"
    return 1.0 + counters.num_accepted_tokens / counters.num_drafts


def acceptance_metrics(counters: EngineCounters) -> dict[str, float]:
    """`spec/*` of a period, empty when nothing was drafted.

    The rate at depth j counts a draft only when its tokens at depths 1..j were all accepted, so the rates fall
    with j and sum to the mean acceptance length minus 1.
    """
    if counters.num_drafts == 0:
        return {}
    row = {
        metrics.SPEC_ACCEPTANCE_RATE: counters.num_accepted_tokens / counters.num_draft_tokens,
        metrics.SPEC_MEAN_ACCEPTANCE_LENGTH: mean_acceptance_length(counters),
        metrics.SPEC_DRAFTS: float(counters.num_drafts),
    }
    for j, accepted in enumerate(counters.accepted_per_depth, start=1):
        row[metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, j)] = accepted / counters.num_drafts
    return row


def rollout_metrics(engines: Sequence[EngineCounters], *, wall_seconds: float) -> dict[str, float]:
    """Metrics of a step from each engine's difference of counters.

    Args:
        engines: what each engine counted during the step, in the order of the engines.
        wall_seconds: wall time of the step's generation.
    """
    everything = total(engines)
    row = {**acceptance_metrics(everything), **by_response_metrics(everything.ended)}
    row[metrics.PERF_ROLLOUT_TOKENS] = float(everything.generation_tokens)
    if wall_seconds > 0:
        row[metrics.PERF_ROLLOUT_TOK_S] = everything.generation_tokens / wall_seconds
    for number, counters in enumerate(engines):
        if counters.busy_seconds > 0:
            name = metrics.engine_metric(metrics.PERF_ROLLOUT_TOK_S, number)
            row[name] = counters.generation_tokens / counters.busy_seconds
    return row


_SPEC = "vllm:spec_decode_num_"


def read_counters(*, busy_seconds: float) -> EngineCounters:
    """This process's vLLM counters. Without speculation the draft counts are 0.

    Args:
        busy_seconds: the caller's own measurement, passed through.
    """
    from vllm.v1.metrics.reader import Counter, Vector, get_metrics_snapshot

    snapshot = get_metrics_snapshot()
    counts: dict[str, int] = {}
    for metric in snapshot:
        if isinstance(metric, Counter):
            counts[metric.name] = counts.get(metric.name, 0) + metric.value
    per_depth = next(
        (m.values for m in snapshot if isinstance(m, Vector) and m.name == f"{_SPEC}accepted_tokens_per_pos"),
        (),
    )
    return EngineCounters(
        num_drafts=counts.get(f"{_SPEC}drafts", 0),
        num_draft_tokens=counts.get(f"{_SPEC}draft_tokens", 0),
        num_accepted_tokens=counts.get(f"{_SPEC}accepted_tokens", 0),
        accepted_per_depth=tuple(per_depth),
        generation_tokens=counts["vllm:generation_tokens"],
        busy_seconds=busy_seconds,
        finished_requests=counts.get("vllm:request_success", 0),
    )
