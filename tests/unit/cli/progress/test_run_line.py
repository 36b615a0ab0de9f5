"""Progress: a row is a line, and what a user must know is said once, when it begins."""

import io

from rich.console import Console

from openrlhf_mtp.cli.progress import run_line
from openrlhf_mtp.cli.progress.estimate import Part
from openrlhf_mtp.cli.progress.line import StageParts, Whole
from openrlhf_mtp.cli.progress.run_line import Concerns, describe, follow_run
from openrlhf_mtp.runlog.activity import Activity, activity
from openrlhf_mtp.runlog.row_writer import RowWriter


def row(step, gap):
    return {
        "step": step,
        "spec/alpha_gap": gap,
        "spec/acceptance_rate": 0.6,
        "spec/drafts": 1000.0,
        "mtp/reach/depth_1": 0.8,
    }


def test_a_line_shows_what_the_row_has():
    assert describe({"step": 1, "policy/reward": 0.5, "time/step_s": 2.25}) == "reward 0.50  s/step 2.2"


def test_a_disagreement_is_said_where_it_begins_and_again_only_after_it_ended():
    concerns = Concerns()
    gaps = [0.2] * 6 + [0.0] * 6 + [0.2] * 3
    said = [step for step, gap in enumerate(gaps, start=1) if concerns.see(row(step, gap)) is not None]
    assert said == [3, 13]


def test_a_resumed_run_does_not_repeat_what_was_said():
    concerns = Concerns([row(step, 0.2) for step in range(1, 6)])
    assert concerns.see(row(6, 0.2)) is None


def test_the_warning_stands_below_its_step(tmp_path, capsys):
    with RowWriter(tmp_path) as writer, follow_run(tmp_path, title="RL"):
        for step in range(1, 5):
            writer.append(row(step, 0.2))
    lines = capsys.readouterr().err.splitlines()
    starts = [line.split("  ")[0].split(": trainer")[0].strip() for line in lines]
    assert starts == ["RL 1", "RL 2", "RL 3", "warning: step 3", "RL 4"]
    assert "the engines accept 60.0%" in lines[3]


def test_a_log_shows_a_sign_of_life_while_nothing_happens(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_line, "LINE_EVERY_S", 0.0)
    with RowWriter(tmp_path) as writer, follow_run(tmp_path, title="RL"):
        err = ""
        while "RL: starting, " not in err:
            err += capsys.readouterr().err
        writer.append(row(1, 0.0))
        while "RL: in the step after 1, " not in err:
            err += capsys.readouterr().err


def test_a_log_shows_what_goes_on_within_a_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_line, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr("openrlhf_mtp.runlog.activity.SAY_EVERY_S", 0.0)
    Activity(tmp_path, "rollout").say("an earlier run was killed here")
    with RowWriter(tmp_path) as writer, follow_run(tmp_path, title="RL", total=20):
        err = ""
        with activity(tmp_path, "rollout") as now:
            now.say("rollout 120/256 responses")
            while "RL: rollout 120/256 responses\n" not in err:
                err += capsys.readouterr().err
            writer.append(row(2, 0.0))
            while "RL 3/20 · rollout 120/256 responses\n" not in err:
                err += capsys.readouterr().err
        while "RL: in the step after 2, " not in err:
            err += capsys.readouterr().err
    assert "an earlier run" not in err


def test_a_whole_shows_what_goes_on_beside_the_part(tmp_path):
    one = Whole([StageParts("RL", (Part("starting", 1.0), Part("RL", 10.0)))], Console(file=io.StringIO()))
    one.begin(0)
    one.enter("RL")
    one.step(1, 4, "reward 0.50")
    one.remark("rollout 3/8 responses")
    assert one.line().endswith("rollout 3/8 responses")
    one.remark("")
    assert one.line().endswith("rollout 3/8 responses")
    one.step(2, 4, "reward 0.70")
    assert one.line().endswith("reward 0.70")
