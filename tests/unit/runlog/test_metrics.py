"""The metric table: a name that is not declared must never reach a log, and parametric names must round-trip."""

import re

import pytest

from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.metric_table import UnknownMetric


def test_names_are_unique_and_described():
    names = [metric.name for metric in metrics.METRICS]
    assert len(names) == len(set(names))
    assert all(metric.unit and metric.meaning for metric in metrics.METRICS)


def test_names_that_other_tools_rely_on_are_declared():
    contract = """policy/reward policy/entropy policy/kl mtp/loss mtp/loss/depth_1 mtp/alpha/depth_1 mtp/expected_length
        mtp/coefficient mtp/grad_norm spec/acceptance_rate spec/acceptance_rate/depth_1 spec/mean_acceptance_length
        spec/logprob_gap time/rollout_s time/train_s time/sync_s time/step_s perf/rollout_tok_s"""
    metrics.validate(dict.fromkeys(contract.split(), 0.0))


def test_depth_is_counted_from_one():
    assert metrics.depth_metric("mtp/alpha", 1) == "mtp/alpha/depth_1"
    assert metrics.lookup("mtp/alpha/depth_12").name == "mtp/alpha/depth_{j}"
    with pytest.raises(ValueError, match="counted from 1, got 0"):
        metrics.depth_metric("mtp/alpha", 0)
    with pytest.raises(UnknownMetric):
        metrics.validate({"mtp/alpha/depth_0": 1.0})


def test_engines_are_counted_from_zero():
    assert metrics.engine_metric("perf/rollout_tok_s", 0) == "perf/rollout_tok_s/engine_0"
    metrics.validate({"perf/rollout_tok_s/engine_10": 1.0})
    with pytest.raises(UnknownMetric):
        metrics.validate({"perf/rollout_tok_s/engine_01": 1.0})


def test_a_response_has_four_quarters():
    assert metrics.quarter_metric("mtp/replayed_length", 4) == "mtp/replayed_length/quarter_4"
    with pytest.raises(ValueError, match="got 5"):
        metrics.quarter_metric("mtp/replayed_length", 5)
    with pytest.raises(UnknownMetric):
        metrics.validate({"mtp/replayed_length/quarter_0": 1.0})


def test_a_base_without_depths_is_refused_with_those_that_have_them():
    with pytest.raises(UnknownMetric, match=re.escape("mtp/alpha")):
        metrics.depth_metric("policy/reward", 1)


def test_every_unknown_name_is_listed_with_the_nearest_declared_one():
    with pytest.raises(UnknownMetric) as caught:
        metrics.validate({"policy/rewards": 1.0, "policy/reward": 1.0, "spec/drats": 2})
    message = str(caught.value)
    assert "'policy/rewards'; did you mean 'policy/reward'?" in message
    assert "'spec/drats'; did you mean 'spec/drafts'?" in message


def test_a_placeholder_is_not_a_name():
    with pytest.raises(UnknownMetric):
        metrics.lookup("mtp/alpha/depth_{j}")


def test_a_constant_is_the_name_of_its_metric_in_capitals():
    constants = {
        name: value for name, value in vars(metrics).items() if isinstance(value, str) and name.isupper()
    }
    declared = {
        re.sub(r"/(depth_\{j\}|engine_\{i\}|quarter_\{q\})$", "", metric.name) for metric in metrics.METRICS
    }
    assert set(constants.values()) == declared
    for name, value in constants.items():
        assert name == value.upper().replace("/", "_")


def test_what_is_measured_on_held_out_responses_has_a_name_of_its_own():
    assert metrics.held_out(metrics.MTP_LOSS) == metrics.EVAL_MTP_LOSS
    with pytest.raises(UnknownMetric):
        metrics.held_out(metrics.MTP_GRAD_NORM)
