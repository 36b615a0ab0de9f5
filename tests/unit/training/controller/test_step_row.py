"""OpenRLHF's status in our metric names: nothing undeclared, nothing lost, no number changed."""

import pytest

from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.metric_table import UnknownMetric
from openrlhf_mtp.training.controller.step_row import OWN_PREFIXES, STATUS_NAMES, evaluation_row, step_row


def test_every_name_we_translate_to_is_declared():
    metrics.validate(dict.fromkeys(STATUS_NAMES.values(), 0.0))
    assert len(set(STATUS_NAMES.values())) == len(STATUS_NAMES), (
        "two of OpenRLHF's keys would overwrite each other"
    )


def test_a_row_holds_every_translated_value_and_the_step_time():
    status = {theirs: float(number) for number, theirs in enumerate(STATUS_NAMES)}
    row = step_row(status, step_seconds=4.5)
    assert row == {ours: status[theirs] for theirs, ours in STATUS_NAMES.items()} | {"time/step_s": 4.5}


def test_our_own_metrics_pass_through_and_foreign_keys_stay_out():
    row = step_row(
        {"mtp/loss": 0.25, "spec/logprob_gap": 1e-3, "vllm_kl": 0.1, "generated": "text"}, step_seconds=1.0
    )
    assert row == {"mtp/loss": 0.25, "spec/logprob_gap": 1e-3, "time/step_s": 1.0}


@pytest.mark.parametrize("family", sorted({metric.name.partition("/")[0] for metric in metrics.METRICS}))
def test_no_family_of_declared_metrics_is_lost_on_the_way_to_the_run_folder(family):
    elsewhere = {
        metrics.STEP,
        "eval",
        "critic",
    }  # the row's number, evaluations, and what OpenRLHF names itself
    assert family in elsewhere or f"{family}/" in OWN_PREFIXES


def test_values_that_openrlhf_leaves_empty_are_left_out():
    assert step_row({"kl": None, "policy_loss": 0.5}, step_seconds=1.0) == {
        "policy/loss": 0.5,
        "time/step_s": 1.0,
    }


def test_an_undeclared_metric_of_ours_is_refused():
    with pytest.raises(UnknownMetric, match="mtp/los"):
        step_row({"mtp/los": 0.0}, step_seconds=1.0)


def test_entropy_comes_from_the_policy_and_only_without_it_from_the_head():
    assert step_row({"mtp/entropy": 1.5}, step_seconds=1.0)["policy/entropy"] == 1.5
    both = step_row({"mtp/entropy": 1.5, "entropy_loss": 1.25}, step_seconds=1.0)
    assert both["policy/entropy"] == 1.25


def test_an_evaluation_is_the_mean_over_data_sources():
    logs = {
        "eval_addition_pass1": 0.5,
        "eval_addition_pass4": 0.75,
        "eval_subtraction_pass1": 0.25,
        "eval_subtraction_pass4": 1.0,
        "eval_addition_truncated_rate": 0.5,
        "eval_truncated_rate": 0.25,
        "eval_response_length_mean": 17.0,
    }
    assert evaluation_row(logs) == {
        "eval/accuracy": 0.375,
        "eval/pass_at_k": 0.875,
        "eval/response_length": 17.0,
        "eval/truncated_rate": 0.25,
    }


def test_one_sample_a_prompt_has_no_pass_at_k():
    assert evaluation_row({"eval_addition_pass1": 0.5}) == {
        "eval/accuracy": 0.5,
    }


def test_a_data_source_may_have_pass_in_its_name():
    logs = {
        "eval_bypass_passages_pass1": 0.5,
        "eval_bypass_passages_pass16": 0.75,
        "eval_bypass_passages_truncated": 1,
    }
    assert evaluation_row(logs) == {
        "eval/accuracy": 0.5,
        "eval/pass_at_k": 0.75,
    }
