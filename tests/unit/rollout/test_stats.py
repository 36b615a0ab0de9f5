from typing import Any

import pytest

from openrlhf_mtp.rollout.stats import EngineCounters, acceptance_metrics, rollout_metrics, total
from openrlhf_mtp.runlog import metrics


def counters(**changes: Any) -> EngineCounters:
    values: dict[str, Any] = {
        "num_drafts": 10,
        "num_draft_tokens": 30,
        "num_accepted_tokens": 15,
        "accepted_per_depth": (8, 5, 2),
        "generation_tokens": 25,
        "busy_seconds": 2.0,
    }
    return EngineCounters(**{**values, **changes})


def test_acceptance_is_reported_over_all_drafts_and_per_depth() -> None:
    row = acceptance_metrics(counters())
    assert row == {
        "spec/acceptance_rate": 0.5,
        "spec/acceptance_rate/depth_1": 0.8,
        "spec/acceptance_rate/depth_2": 0.5,
        "spec/acceptance_rate/depth_3": 0.2,
        "spec/mean_acceptance_length": 2.5,
        "spec/drafts": 10.0,
    }


def test_the_rates_by_depth_sum_to_the_mean_acceptance_length() -> None:
    row = acceptance_metrics(counters())
    by_depth = [value for name, value in row.items() if "/depth_" in name]
    assert 1.0 + sum(by_depth) == pytest.approx(row["spec/mean_acceptance_length"])


def test_engines_are_weighted_by_their_drafts_not_averaged() -> None:
    busy = counters(
        num_drafts=90, num_draft_tokens=270, num_accepted_tokens=270, accepted_per_depth=(90, 90, 90)
    )
    idle = counters(num_drafts=10, num_draft_tokens=30, num_accepted_tokens=0, accepted_per_depth=(0, 0, 0))
    row = acceptance_metrics(total([busy, idle]))
    assert row["spec/acceptance_rate"] == pytest.approx(0.9)
    assert row["spec/mean_acceptance_length"] == pytest.approx(3.7)


def test_an_engine_that_did_not_draft_yet_adds_nothing() -> None:
    silent = counters(num_drafts=0, num_draft_tokens=0, num_accepted_tokens=0, accepted_per_depth=())
    assert acceptance_metrics(total([silent, counters()])) == acceptance_metrics(counters())


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
    plain = counters(num_drafts=0, num_draft_tokens=0, num_accepted_tokens=0, accepted_per_depth=())
    row = rollout_metrics([plain], wall_seconds=1.0)
    assert not [name for name in row if name.startswith("spec/")]
    assert row["perf/rollout_tok_s"] == 25.0


def test_a_difference_of_counters_is_what_happened_in_between() -> None:
    later = EngineCounters(
        num_drafts=14,
        num_draft_tokens=42,
        num_accepted_tokens=21,
        accepted_per_depth=(12, 7, 2),
        generation_tokens=40,
        busy_seconds=2.5,
    )
    assert later.since(counters()) == EngineCounters(
        num_drafts=4,
        num_draft_tokens=12,
        num_accepted_tokens=6,
        accepted_per_depth=(4, 2, 0),
        generation_tokens=15,
        busy_seconds=0.5,
    )


def test_the_first_draft_after_a_silent_start_counts_from_zero() -> None:
    assert counters().since(counters(accepted_per_depth=())).accepted_per_depth == (8, 5, 2)


def test_a_restarted_engine_is_noticed() -> None:
    with pytest.raises(ValueError, match="was it restarted"):
        counters(generation_tokens=0).since(counters())


def test_counters_survive_the_trip_through_a_ray_dictionary() -> None:
    assert EngineCounters.from_dict(counters().to_dict()) == counters()
