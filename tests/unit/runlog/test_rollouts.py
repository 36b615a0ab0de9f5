"""Kept responses: they come back as they were, and a resumed run has none that it will generate again."""

import pytest

from openrlhf_mtp.runlog.rollouts import RecordedResponse, read_rollouts, recorded_steps, write_rollouts
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.run_folder import claim

ONE = RecordedResponse("12+3\n", "15 é\u2028<eos>", (4, 5, 6, 7), ((1, 2), (3, 4)), 1.0, -0.5)


def test_a_response_comes_back_as_it_was(tmp_path):
    write_rollouts(tmp_path, 7, [ONE, ONE])
    assert read_rollouts(tmp_path, 7) == [ONE, ONE]
    lines = (tmp_path / "rollouts" / "step_000007.jsonl").read_bytes().split(b"\n")
    assert [bool(line) for line in lines] == [True, True, False], "a line a response, whatever is in it"


def test_a_resumed_run_drops_the_steps_that_it_runs_again(tmp_path):
    for step in (1, 2, 1_000_000):
        write_rollouts(tmp_path, step, [ONE])
    with RowWriter(tmp_path, after_step=1):
        assert recorded_steps(tmp_path) == [1]


def test_starting_over_removes_them(tmp_path):
    write_rollouts(tmp_path, 1, [ONE])
    claim(tmp_path, overwrite=True)
    assert recorded_steps(tmp_path) == []


def test_a_step_without_them_is_said_with_the_setting(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mtp\.record\.rollouts"):
        read_rollouts(tmp_path, 3)
