"""The report: readable from any run folder, however little the run left behind, and without anything from outside."""

import json
import math
import re

import pytest

from openrlhf_mtp.analysis.figures import FIGURES
from openrlhf_mtp.analysis.report import number, write_report
from openrlhf_mtp.run_folder import METRICS, RunFolderError, RunWriter

ROW = {
    "policy/reward": 0.5,
    "policy/entropy": 0.2,
    "spec/acceptance_rate": 0.8,
    "spec/acceptance_rate/depth_1": 0.9,
    "spec/acceptance_rate/depth_2": 0.7,
    "spec/mean_acceptance_length": 2.6,
    "mtp/loss": 0.1,
    "mtp/alpha/depth_1": 0.9,
    "mtp/alpha/depth_2": 0.8,
    "time/rollout_s": 2.0,
    "time/sync_s": 0.2,
    "time/step_s": 4.0,
    "perf/rollout_tok_s": 2000.0,
}


@pytest.fixture
def make_run(tmp_path):
    def make(name, rows):
        with RunWriter(tmp_path / name) as writer:
            for step, row in enumerate(rows, start=1):
                writer.append({"step": step, **row})
        return tmp_path / name

    return make


def text_of(report):
    return re.sub(r'src="data:image/png;base64,[^"]*"', "", report.read_text())


def test_a_run_gets_every_figure_and_one_file_that_needs_nothing_else(make_run, tmp_path):
    report = write_report([make_run("a", [ROW, ROW])], tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == set(FIGURES)
    html = report.read_text()
    assert html.count("data:image/png;base64,") == len(FIGURES)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert not re.findall(r"https?:|@import|url\(", html)


def test_one_step_is_enough(make_run, tmp_path):
    report = write_report([make_run("a", [ROW])], tmp_path / "out")
    assert "0.5 → 0.5" in text_of(report)


def test_an_empty_log_is_said_not_crashed_on(make_run, tmp_path):
    report = write_report([make_run("a", [])], tmp_path / "out")
    text = text_of(report)
    assert "a: metrics.jsonl holds no step" in text
    assert text.count("Nothing to show") == len(FIGURES)


def test_a_missing_metric_is_named_in_the_place_of_its_figure(make_run, tmp_path):
    report = write_report([make_run("a", [{"policy/reward": 0.5}])], tmp_path / "out")
    assert "no step logged time/sync_s" in text_of(report)
    assert [path.stem for path in (tmp_path / "out" / "figures").iterdir()] == ["reward"]


def test_a_figure_of_an_earlier_report_does_not_stay_behind(make_run, tmp_path):
    write_report([make_run("a", [ROW])], tmp_path / "out")
    write_report([make_run("b", [{"policy/reward": 0.5}])], tmp_path / "out")
    assert not (tmp_path / "out" / "figures" / "sync.png").exists()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_reported_with_their_step(make_run, tmp_path, broken):
    rows = [ROW, dict.fromkeys(ROW, broken), ROW]
    report = write_report([make_run("a", rows)], tmp_path / "out")
    assert "a: policy/reward is not finite at step 2" in text_of(report)


def test_a_run_in_which_nothing_is_finite_still_gets_a_report(make_run, tmp_path):
    report = write_report([make_run("a", [dict.fromkeys(ROW, math.nan)])], tmp_path / "out")
    assert "spec/mean_acceptance_length is not finite at step 1" in text_of(report)


def test_runs_stand_side_by_side_and_may_differ_in_depths_and_metrics(make_run, tmp_path):
    first, second = (
        make_run("first", [ROW, ROW]),
        make_run("second", [{"policy/reward": 0.9, "time/step_s": 1.0}]),
    )
    text = text_of(write_report([first, second], tmp_path / "out"))
    assert "<th>first</th><th>second</th>" in text
    assert "<td>0.5 → 0.5</td><td>0.9 → 0.9</td>" in text
    assert "<td>2.6</td><td>–</td>" in text


def test_runs_of_the_same_name_can_be_told_apart(make_run, tmp_path):
    text = text_of(write_report([make_run("x/rl", [ROW]), make_run("y/rl", [ROW])], tmp_path / "out"))
    assert "<th>x/rl</th><th>y/rl</th>" in text


def test_text_from_a_run_cannot_become_markup(make_run, tmp_path):
    run = make_run("a", [ROW])
    (run / "command.txt").write_text("<script>alert(1)</script>")
    assert "<script>" not in text_of(write_report([run], tmp_path / "out"))


def test_a_metric_of_another_version_is_shown_as_unknown(make_run, tmp_path):
    run = make_run("a", [ROW])
    with (run / METRICS).open("a") as file:
        file.write(json.dumps({"step": 2, "policy/novelty": 1.0}) + "\n")
    assert "not declared by this version" in text_of(write_report([run], tmp_path / "out"))


def test_no_run_and_a_folder_without_a_run_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match="got 0 run folders"):
        write_report([], tmp_path)
    with pytest.raises(RunFolderError, match="holds neither"):
        write_report([tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, "0.5"), (3.14159, "3.14"), (12, "12"), (1_600_000.0, "1 600 000"), (1234.5, "1 234")],
)
def test_numbers_are_short_and_never_exponents(value, shown):
    assert number(value) == shown
