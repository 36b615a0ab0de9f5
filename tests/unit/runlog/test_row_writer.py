"""The log of steps: a resumed run must not log a step twice, and nothing undeclared gets in."""

import json
import math

import numpy as np
import pytest

from openrlhf_mtp.config.run_files import METRICS
from openrlhf_mtp.runlog.anchor_records import write_records
from openrlhf_mtp.runlog.metric_table import UnknownMetric
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.run import read_run


def test_every_line_is_json_that_other_tools_read(tmp_path):
    with RowWriter(tmp_path) as writer:
        writer.append({"step": 1, "policy/loss": math.inf})
    strict = json.loads((tmp_path / METRICS).read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict == {"step": 1, "policy/loss": None}


def test_resuming_drops_the_steps_that_will_be_run_again(tmp_path):
    with RowWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.append({"step": step, "policy/reward": step / 10})
            for split in ("rollout", "heldout"):
                write_records(writer.out, step, *np.zeros((3, 4, 2)), split=split)
    with RowWriter(tmp_path, after_step=2) as writer:
        writer.append({"step": 3, "policy/reward": 0.9})
    run = read_run(tmp_path)
    assert run.series("policy/reward") == ([1, 2, 3], [0.1, 0.2, 0.9])
    assert (sorted(run.records), sorted(run.held_out)) == ([1, 2], [1, 2])


def test_a_run_that_died_before_its_first_checkpoint_starts_from_nothing(tmp_path):
    with RowWriter(tmp_path) as writer:
        writer.append({"step": 0, "eval/accuracy": 0.4})
        writer.append({"step": 1})
    assert read_run(tmp_path).last_step == 1
    with RowWriter(tmp_path) as writer:
        assert writer.last_step == -1
        writer.append({"step": 0, "eval/accuracy": 0.4})
    assert read_run(tmp_path).last_step == 0


def test_what_is_measured_later_joins_the_last_step(tmp_path):
    with RowWriter(tmp_path) as writer:
        writer.append({"step": 1, "policy/reward": 0.5})
        writer.append({"step": 2, "policy/reward": 0.6})
        writer.amend({"eval/accuracy": 0.7}, step=writer.last_step)
    assert read_run(tmp_path).rows[1] == {"step": 2, "policy/reward": 0.6, "eval/accuracy": 0.7}


def test_a_step_out_of_order_is_refused(tmp_path):
    with RowWriter(tmp_path) as writer:
        writer.append({"step": 2})
        with pytest.raises(ValueError, match="above 2, got 2"):
            writer.append({"step": 2})
        with pytest.raises(ValueError, match="got None"):
            writer.append({"policy/reward": 1.0})


def test_an_undeclared_metric_never_reaches_the_log(tmp_path):
    with RowWriter(tmp_path) as writer, pytest.raises(UnknownMetric):
        writer.append({"step": 1, "policy/rewrad": 1.0})
    assert (tmp_path / METRICS).read_text() == ""


def test_tensorboard_shows_what_was_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RowWriter(tmp_path) as writer:
        writer.append({"step": 7, "policy/reward": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("policy/reward")
    assert [(event.step, event.value) for event in events] == [(7, 0.5)]
