from typing import Any

import pytest

from openrlhf_mtp.rollout.ended_responses import EndedResponses
from openrlhf_mtp.rollout.stats import EngineCounters, rollout_metrics, total
from openrlhf_mtp.runlog import metrics

ENDED = EndedResponses.of(26, [1] * 3 + [2] * 3 + [3] * 2 + [0] * 2, [3] * 10, depths=3)


def counters(**changes: Any) -> EngineCounters:
    values: dict[str, Any] = {"generation_tokens": 25, "busy_seconds": 2.0, "ended": ENDED}
    return EngineCounters(**{**values, **changes})


def test_engines_are_weighted_by_their_drafts_not_averaged() -> None:
    busy = counters(ended=EndedResponses.of(361, [3] * 90, [3] * 90, depths=3))
    idle = counters(ended=EndedResponses.of(11, [0] * 10, [3] * 10, depths=3))
    row = rollout_metrics([busy, idle], wall_seconds=1.0)
    assert row["spec/acceptance_rate"] == pytest.approx(0.9)
    assert row["spec/mean_acceptance_length"] == pytest.approx(3.7)


def test_an_engine_that_did_not_draft_yet_adds_nothing() -> None:
    silent = counters(ended=EndedResponses())
    assert total([silent, counters()]).ended == ENDED


def test_every_name_is_declared() -> None:
    row = rollout_metrics([counters(), counters()], wall_seconds=4.0)
    metrics.validate(row)


def test_throughput_of_all_engines_counts_wall_time_and_of_one_its_busy_time() -> None:
    row = rollout_metrics([counters(), counters(generation_tokens=75, busy_seconds=3.0)], wall_seconds=4.0)
    assert row["perf/rollout_tokens"] == 100.0
    assert row["perf/rollout_tok_s"] == 25.0
    assert row["perf/rollout_tok_s/engine_0"] == 12.5
    assert row["perf/rollout_tok_s/engine_1"] == 25.0


def test_without_speculation_only_throughput_is_reported() -> None:
    row = rollout_metrics([counters(ended=EndedResponses())], wall_seconds=1.0)
    assert not [name for name in row if name.startswith("spec/")]
    assert row["perf/rollout_tok_s"] == 25.0


def test_a_difference_of_counters_is_what_happened_in_between() -> None:
    later = EngineCounters(generation_tokens=40, busy_seconds=2.5, finished_requests=3, ended=ENDED)
    expected = EngineCounters(generation_tokens=15, busy_seconds=0.5, finished_requests=2, ended=ENDED)
    assert later.since(counters(finished_requests=1)) == expected, "responses are taken, never cumulative"


def test_a_restarted_engine_is_noticed() -> None:
    with pytest.raises(ValueError, match="was it restarted"):
        counters(generation_tokens=0).since(counters())


def test_counters_survive_the_trip_through_a_ray_dictionary() -> None:
    assert EngineCounters.from_dict(counters().to_dict()) == counters()
