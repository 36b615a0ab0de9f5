"""A run as it is read back: what was logged must survive a crash."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.run_files import METRICS
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.run_folder import RunFolderError, write_command, write_config, write_summary


def test_a_row_comes_back_as_it_was_logged(tmp_path):
    with RowWriter(tmp_path) as writer:
        writer.append({"step": 1, "policy/reward": 0.25, "policy/kl": math.nan})
        writer.append({"step": 2, "policy/reward": 0.5})
    write_config(tmp_path, "train: {seed: 1}")
    write_command(tmp_path, ["openrlhf-mtp", "train", "a job.yaml"])
    write_summary(tmp_path, {"policy/reward": 0.5})
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


def test_a_line_cut_off_by_a_crash_is_dropped_and_said(tmp_path):
    with RowWriter(tmp_path) as writer:
        writer.append({"step": 1, "policy/reward": 0.25})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 2, "policy/rew')
    run = read_run(tmp_path)
    assert [row["step"] for row in run.rows] == [1]
    assert run.warnings == ["metrics.jsonl line 2 is not a step and was left out"]


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
