"""One line for a whole of several stages: what it says, that it fits, and that a log is neither silent nor flooded."""

import io

import pytest
from rich.console import Console

from openrlhf_mtp.cli.progress import line as module
from openrlhf_mtp.cli.progress.counting import counted
from openrlhf_mtp.cli.progress.estimate import Part
from openrlhf_mtp.cli.progress.line import StageParts, Whole, whole
from openrlhf_mtp.cli.progress.run_line import follow_run
from openrlhf_mtp.runlog.count import Count
from openrlhf_mtp.runlog.row_writer import RowWriter

STAGES = [
    StageParts("pretrain", [Part("starting", 60.0), Part("head", 60.0), Part("report", 0.0)]),
    StageParts("train", [Part("RL", 60.0)]),
]


def told(width=80, terminal=False):
    return Whole(STAGES, Console(file=io.StringIO(), width=width, force_terminal=terminal))


def test_a_line_says_stage_part_count_time_and_what_there_is_to_say():
    one = told()
    one.begin(0)
    assert one.line() == "[1/2] starting, about 3 min left of 3"
    one.enter("head")
    one.step(40, 120, "loss 0.31")
    assert one.line().startswith("[1/2] head 40/120, ")
    assert one.line().endswith("  loss 0.31")
    one.leave()
    assert one.line().startswith("[1/2] report, ")
    one.end("done")
    one.begin(1)
    assert one.line().startswith("[2/2] RL, ")


def test_a_stage_that_restarts_is_at_its_first_part():
    one = told()
    one.begin(0)
    one.enter("head")
    one.restart()
    assert one.line().startswith("[1/2] starting, ")


@pytest.mark.parametrize("width", [60, 80])
def test_a_terminal_never_gets_a_second_row(width):
    one = told(width, terminal=True)
    one.begin(0)
    one.enter("head")
    one.step(40, 120, "  ".join(f"figure{number} {number}.00" for number in range(20)))
    console = Console(file=io.StringIO(), width=width)
    console.print(one)
    (row,) = console.file.getvalue().splitlines()
    assert len(row) <= width
    assert "left of" in row


def test_a_terminal_is_shown_every_moment_of_a_whole():
    one = told(60, terminal=True)
    with one.shown():
        for stage, listed in enumerate(STAGES):
            one.begin(stage)
            for part in listed.parts:
                one.enter(part.name)
                one.step(1, 2, "detail")
                one.print("warning: something")
                one.leave()
            one.end("done")
            one.print("between two stages")
    shown = one._console.file.getvalue()
    assert "[1/2] pretrain: done" in shown
    assert "[2/2] train: done" in shown


def test_a_log_gets_a_line_for_each_part_but_not_for_each_step(capsys):
    one = told()
    with one.shown():
        one.begin(0)
        one.enter("head")
        for step in range(1, 121):
            one.step(step, 120)
        one.end("done")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "[1/2] starting",
        "[1/2] head",
        "[1/2] head 120/120",
    ]


def test_a_log_hears_of_a_part_that_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    one, lines = told(), 0
    with one.shown():
        one.begin(0)
        while lines < 2:
            lines += capsys.readouterr().err.count("[1/2] starting, ")


def test_a_run_and_a_count_tell_the_whole_instead_of_the_terminal(tmp_path, capsys):
    one = told()
    with one.shown():
        assert whole() is one
        one.begin(0)
        count = Count(3, "prompts")
        with counted("head", count):
            count.advance(3)
        one.end("done")
        one.begin(1)
        with RowWriter(tmp_path) as writer, follow_run(tmp_path, title="RL", total=2):
            for step in (1, 2):
                writer.append({"step": step, "policy/reward": 0.5})
        one.end("done")
    assert whole() is None
    lines = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines[-1] == "[2/2] RL 2/2"
    assert "[1/2] head 3/3" in lines


def test_after_an_error_no_next_part_is_announced(tmp_path, capsys):
    def work(context):
        with context:
            raise ValueError("an engine ended")

    one = told()
    with one.shown():
        one.begin(0)
        with pytest.raises(ValueError, match="an engine ended"):
            work(counted("head", Count(3, "prompts")))
        with pytest.raises(ValueError, match="an engine ended"):
            work(follow_run(tmp_path, title="head", total=2))
    assert "report" not in capsys.readouterr().err
