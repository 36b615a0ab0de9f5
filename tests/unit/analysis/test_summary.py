"""The summary: the figures a closing table quotes must be those of the log."""

import math

import pytest

from openrlhf_mtp.analysis.summary import summarize, time_parts
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.run import read_run


@pytest.fixture
def run_of(tmp_path):
    def run_of(*rows):
        with RowWriter(tmp_path / "run") as writer:
            for row in rows:
                writer.append(row)
        return read_run(tmp_path / "run")

    return run_of


def test_first_last_and_extremes_are_over_the_steps_that_measured(run_of):
    run = run_of(
        {"step": 0, "eval/accuracy": 0.4},
        {"step": 1, "policy/reward": 0.5},
        {"step": 2, "policy/reward": 0.2, "eval/accuracy": 0.8},
        {"step": 3, "policy/reward": 0.7},
    )
    summary = summarize(run)
    assert summary["steps"] == 3
    assert summary["metrics"]["eval/accuracy"] == pytest.approx(
        {"first": 0.4, "last": 0.8, "min": 0.4, "max": 0.8, "mean": 0.6}
    )
    assert summary["metrics"]["policy/reward"]["min"] == 0.2


def test_a_step_splits_into_its_parts_and_the_rest(run_of):
    run = run_of(
        {"step": 1, "time/rollout_s": 2.0, "time/train_s": 1.0, "time/sync_s": 0.5, "time/step_s": 4.0},
        {"step": 2, "time/rollout_s": 1.0, "time/train_s": 1.0, "time/sync_s": 0.5, "time/step_s": 4.0},
    )
    assert time_parts(run) == {"rollout": 3.0, "training": 2.0, "sync": 1.0, "other": 2.0}
    assert summarize(run)["time_share"] == pytest.approx(
        {"rollout": 0.375, "training": 0.25, "sync": 0.125, "other": 0.25}
    )


def test_a_stage_whose_steps_have_no_parts_has_a_time_but_no_split(run_of):
    summary = summarize(run_of({"step": 1, "time/step_s": 2.0}, {"step": 2, "time/step_s": 3.0}))
    assert summary["wall_s"] == 5.0
    assert summary["time_share"] == {}


def test_overlapping_parts_leave_no_negative_rest(run_of):
    run = run_of({"step": 1, "time/rollout_s": 3.0, "time/train_s": 3.0, "time/step_s": 4.0})
    assert time_parts(run)["other"] == 0.0


def test_broken_numbers_are_named_and_kept_out_of_the_extremes(run_of):
    run = run_of(
        {"step": 1, "mtp/loss": 1.0}, {"step": 2, "mtp/loss": math.nan}, {"step": 3, "policy/kl": math.inf}
    )
    summary = summarize(run)
    assert summary["not_finite"] == {"mtp/loss": 2, "policy/kl": 3}
    assert summary["metrics"]["mtp/loss"]["max"] == 1.0
    assert "policy/kl" not in summary["metrics"]


def test_a_run_without_a_step_has_an_empty_summary(run_of):
    assert summarize(run_of()) == {"steps": 0, "wall_s": 0, "time_share": {}, "not_finite": {}, "metrics": {}}


def test_the_three_acceptance_lengths_stand_side_by_side(run_of):
    row = {"mtp/expected_length": 3.5, "mtp/replayed_length": 3.1, "spec/mean_acceptance_length": 3.0}
    summary = summarize(run_of({"step": 1, **row, "spec/length_gap": 0.1, "spec/length_gap_se": 0.02}))
    assert summary["acceptance_length"] == pytest.approx(
        {"steps": 1, "promised": 3.5, "replayed": 3.1, "measured": 3.0, "gap": 0.1, "gap_error": 0.02}
    )
    assert "acceptance_length" not in summarize(run_of({"step": 1, **row}))
