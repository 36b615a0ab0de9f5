"""The run folder: what was logged must survive a crash, and a resumed run must not log a step twice."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.runlog.anchor_records import write_records
from openrlhf_mtp.runlog.metrics import UnknownMetric
from openrlhf_mtp.runlog.run_folder import METRICS, RunFolderError, RunWriter, claim, read_run


def test_a_row_comes_back_as_it_was_logged(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.append({"step": 1, "policy/reward": 0.25, "policy/kl": math.nan})
        writer.append({"step": 2, "policy/reward": 0.5})
        writer.write_config({"train": {"seed": 1}})
        writer.write_command(["openrlhf-mtp", "train", "a job.yaml"])
        writer.write_summary({"policy/reward": 0.5})
    run = read_run(tmp_path)
    assert run.series("policy/reward") == ([1, 2], [0.25, 0.5])
    steps, kl = run.series("policy/kl")
    assert steps == [1]
    assert math.isnan(kl[0])
    assert run.config == {"train": {"seed": 1}}
    assert run.summary == {"policy/reward": 0.5}
    assert run.warnings == []
    assert run.command.startswith("openrlhf-mtp train 'a job.yaml'\n")
    assert "\ngit " in run.command


def test_every_line_is_json_that_other_tools_read(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.append({"step": 1, "policy/loss": math.inf})
    strict = json.loads((tmp_path / METRICS).read_text(), parse_constant=lambda name: pytest.fail(name))
    assert strict == {"step": 1, "policy/loss": None}


def test_a_line_cut_off_by_a_crash_is_dropped_and_said(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.append({"step": 1, "policy/reward": 0.25})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 2, "policy/rew')
    run = read_run(tmp_path)
    assert [row["step"] for row in run.rows] == [1]
    assert run.warnings == ["metrics.jsonl line 2 is not a step and was left out"]


def test_resuming_drops_the_steps_that_will_be_run_again(tmp_path):
    with RunWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.append({"step": step, "policy/reward": step / 10})
            for split in ("rollout", "heldout"):
                write_records(writer.out, step, *np.zeros((3, 4, 2)), split=split)
    with RunWriter(tmp_path, after_step=2) as writer:
        writer.append({"step": 3, "policy/reward": 0.9})
    run = read_run(tmp_path)
    assert run.series("policy/reward") == ([1, 2, 3], [0.1, 0.2, 0.9])
    assert (sorted(run.records), sorted(run.held_out)) == ([1, 2], [1, 2])


def test_a_run_that_died_before_its_first_checkpoint_starts_from_nothing(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.append({"step": 0, "eval/accuracy": 0.4})
        writer.append({"step": 1})
    assert read_run(tmp_path).last_step == 1
    with RunWriter(tmp_path) as writer:
        assert writer.last_step == -1
        writer.append({"step": 0, "eval/accuracy": 0.4})
    assert read_run(tmp_path).last_step == 0


def test_what_is_measured_later_joins_the_last_step(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.append({"step": 1, "policy/reward": 0.5})
        writer.append({"step": 2, "policy/reward": 0.6})
        writer.amend({"eval/accuracy": 0.7}, step=writer.last_step)
    assert read_run(tmp_path).rows[1] == {"step": 2, "policy/reward": 0.6, "eval/accuracy": 0.7}


def test_a_step_out_of_order_is_refused(tmp_path):
    with RunWriter(tmp_path) as writer:
        writer.append({"step": 2})
        with pytest.raises(ValueError, match="above 2, got 2"):
            writer.append({"step": 2})
        with pytest.raises(ValueError, match="got None"):
            writer.append({"policy/reward": 1.0})


def test_an_undeclared_metric_never_reaches_the_log(tmp_path):
    with RunWriter(tmp_path) as writer, pytest.raises(UnknownMetric):
        writer.append({"step": 1, "policy/rewrad": 1.0})
    assert (tmp_path / METRICS).read_text() == ""


def test_tensorboard_shows_what_was_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunWriter(tmp_path) as writer:
        writer.append({"step": 7, "policy/reward": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("policy/reward")
    assert [(event.step, event.value) for event in events] == [(7, 0.5)]


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"neither metrics\.jsonl nor run\.yaml"):
        read_run(tmp_path)
    with pytest.raises(RunFolderError, match="is not a folder"):
        read_run(tmp_path / "missing")


def test_broken_files_leave_a_warning_not_a_traceback(tmp_path):
    (tmp_path / "run.yaml").write_text("a: [1")
    (tmp_path / "summary.json").write_text("{")
    (tmp_path / METRICS).write_text('[1]\n{"policy/reward": 1}\n')
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "step_000001.npz").write_bytes(b"PK not a zip")
    run = read_run(tmp_path)
    assert (run.rows, run.config, run.summary, run.records) == ([], {}, {}, {})
    assert len(run.warnings) == 6


@given(st.text(max_size=200))
def test_no_text_in_the_log_stops_the_reader(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("run")
    (folder / METRICS).write_text(text, encoding="utf-8")
    assert read_run(folder).path == folder


class TestClaim:
    def test_an_earlier_run_is_kept_unless_the_user_says_otherwise(self, tmp_path):
        RunWriter(tmp_path).close()
        with pytest.raises(RunFolderError, match="--resume, or start anew with --overwrite"):
            claim(tmp_path)
        assert claim(tmp_path, resume=True) == tmp_path
        assert (tmp_path / METRICS).exists()

    def test_overwrite_removes_the_run_and_nothing_else(self, tmp_path):
        RunWriter(tmp_path).close()
        (tmp_path / "notes.md").write_text("mine")
        claim(tmp_path, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]

    def test_a_folder_that_cannot_be_written_is_refused(self, tmp_path):
        blocker = tmp_path / "file"
        blocker.touch()
        with pytest.raises(RunFolderError, match="is a file"):
            claim(blocker)
        with pytest.raises(RunFolderError, match="cannot write to"):
            claim(blocker / "below")

    def test_resume_and_overwrite_exclude_each_other(self, tmp_path):
        with pytest.raises(RunFolderError, match="choose one"):
            claim(tmp_path, resume=True, overwrite=True)
