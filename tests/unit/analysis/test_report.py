"""The report: readable from any run folder, however little the run left behind, and without anything from outside."""

import json
import math
import re

import numpy as np
import pytest
import yaml

from openrlhf_mtp.analysis.figures import FIGURES
from openrlhf_mtp.analysis.groups import GroupBy
from openrlhf_mtp.analysis.report import write_report
from openrlhf_mtp.config.run_files import METRICS
from openrlhf_mtp.runlog.anchor_records import write_records
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.run_folder import RunFolderError, write_config
from openrlhf_mtp.runlog.temperature_sweep import TemperaturePoint, write_temperatures

ROW = {
    "policy/reward": 0.5,
    "policy/entropy": 0.2,
    "spec/acceptance_rate": 0.8,
    "spec/acceptance_rate/depth_1": 0.9,
    "spec/acceptance_rate/depth_2": 0.7,
    "spec/mean_acceptance_length": 2.6,
    "spec/alpha_gap": 0.01,
    "spec/length_gap": 0.02,
    "spec/length_gap_se": 0.01,
    "spec/mean_acceptance_length/quarter_1": 2.7,
    "spec/acceptance_length_p10": 2.2,
    "spec/slow_responses": 0.02,
    "mtp/expected_length": 2.65,
    "mtp/replayed_length": 2.62,
    "mtp/replayed_length/quarter_1": 2.72,
    "mtp/replayed_length_p10": 2.4,
    "spec/drafts": 1000.0,
    "mtp/loss": 0.1,
    "mtp/entropy": 0.2,
    "mtp/reach/depth_1": 0.91,
    "mtp/reach/depth_2": 0.71,
    "mtp/coefficient/depth_1": -0.1,
    "occ/alignment/depth_1": -0.001,
    "occ/sign/depth_1": -0.5,
    "occ/magnitude/depth_1": 0.01,
    "mtp/alpha/depth_1": 0.9,
    "mtp/alpha/depth_2": 0.8,
    "time/rollout_s": 2.0,
    "time/sync_s": 0.2,
    "time/step_s": 4.0,
    "perf/rollout_tok_s": 2000.0,
}


@pytest.fixture
def make_run(tmp_path):
    def make(name, rows, **config):
        with RowWriter(tmp_path / name) as writer:
            if config:
                write_config(tmp_path / name, yaml.safe_dump(config))
            for step, row in enumerate(rows, start=1):
                writer.append({"step": step, **row})
        return tmp_path / name

    return make


def add_records(folder):
    """Thirty responses whose sampled drafts keep their acceptance and whose greedy ones lose it with entropy."""
    rng = np.random.default_rng(0)
    entropy = rng.uniform(0.0, 1.5, (900, 2))
    response = np.repeat(np.arange(30), 30)
    for split in ("rollout", "heldout"):
        write_records(
            folder, 1, entropy, 0.9 - 0.05 * entropy, 1.0 - 0.5 * entropy, response=response, split=split
        )


def drifting(steps):
    """Rows of a run whose acceptance length rises as its entropy falls."""
    entropy = np.linspace(1.0, 0.5, steps)
    return [
        {**ROW, "mtp/entropy": h, "spec/mean_acceptance_length": 2.6 - 0.2 * (h - 1.0)}
        for h in entropy.tolist()
    ]


def add_temperatures(folder):
    """A sweep whose length loses 0.2 tokens per nat."""
    points = [
        TemperaturePoint(t, h, 2.6 - 0.2 * (h - 1.0), 0.0, 30)
        for t, h in ((0.8, 0.6), (1.0, 1.0), (1.2, 1.5))
    ]
    write_temperatures(folder, points)


def text_of(report):
    return re.sub(r'src="data:image/png;base64,[^"]*"', "", report.read_text())


def test_a_run_gets_every_figure_and_one_file_that_needs_nothing_else(real_figures, make_run, tmp_path):
    run = make_run("a", drifting(12))
    add_records(run)
    add_temperatures(run)
    report = write_report([run], tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == set(FIGURES)
    html = report.read_text()
    assert html.count("data:image/png;base64,") == len(FIGURES)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert not re.findall(r"https?:|@import|url\(", html)


def test_the_tables_say_what_the_figures_show(make_run, tmp_path):
    run = make_run("a", drifting(12))
    add_records(run)
    add_temperatures(run)
    text = text_of(write_report([run], tmp_path / "out"))
    assert "<td>a</td><td>rollout</td><td>depth 1</td><td>greedy</td>" in text
    assert re.search(
        r"<td>held-out</td><td>depth 2</td><td>sampled</td><td>0\.8\d\d</td><td>-0\.050 ± 0\.000</td>", text
    )
    assert re.search(r"<td>above 0\.2\d nat</td>", text), "0.9 - 0.05 H and 1 - 0.5 H cross at 0.22"
    assert "<td>-0.200 ± 0.000</td>" in text, "the slope of the drift"
    assert "<td>75%</td>" in text, "the alignment is negative in three of four updates"


def test_seeds_of_one_job_are_one_column_with_an_interval(real_figures, make_run, tmp_path):
    runs = [
        make_run(
            f"ce-seed{n}", [{**ROW, "policy/reward": reward}] * 2, train={"seed": n}, mtp={"objective": "ce"}
        )
        for n, reward in ((1, 0.4), (2, 0.5), (3, 0.6))
    ]
    runs.append(make_run("tv", [ROW], train={"seed": 1}, mtp={"objective": "tv"}))
    for run in runs:
        add_records(run)
    text = text_of(write_report(runs, tmp_path / "out"))
    assert "<th>ce (3 runs)</th><th>tv</th>" in text
    assert "<td>3 (1, 2, 3)</td><td>1 (1)</td>" in text
    assert "<td>0.50 ± 0.25 → 0.50 ± 0.25</td><td>0.5 → 0.5</td>" in text


def test_seeds_may_stand_apart(make_run, tmp_path):
    runs = [make_run(f"ce-seed{n}", [ROW], train={"seed": n}) for n in (1, 2)]
    apart = text_of(write_report(runs, tmp_path / "out", GroupBy.NONE))
    assert "<th>ce-seed1</th><th>ce-seed2</th>" in apart


def test_more_groups_than_colors_are_refused_with_their_names(make_run, tmp_path):
    runs = [make_run(f"r{n}", [ROW], actor={"lr": n}) for n in range(7)]
    with pytest.raises(RunFolderError, match=r"got 7 groups of runs \(r0, r1, .*--group folder"):
        write_report(runs, tmp_path / "out")


def test_the_lengths_stand_side_by_side_with_a_sentence_where_they_part(make_run, tmp_path):
    rows = [ROW] * 20
    text = text_of(write_report([make_run("a", rows)], tmp_path / "out"))
    assert (
        "<td>a</td><td>2.650</td><td>2.620</td><td>2.600</td><td>+0.020 ± 0.002</td><td>+0.030</td><td>2 %</td>"
        in text
    )
    assert "replayed minus measured acceptance length is" not in text
    parted = [{**row, "spec/length_gap": 0.1, "mtp/expected_length": 2.9} for row in rows]
    text = text_of(write_report([make_run("b", parted)], tmp_path / "out"))
    assert "b: replayed minus measured acceptance length is +0.100 ± 0.002 tokens over 20 steps" in text
    assert "b: the trainer promises 2.90 tokens and replays 2.62" in text


def test_engines_that_part_from_the_trainer_are_warned_of_with_the_step(make_run, tmp_path):
    rows = [{**ROW, "spec/alpha_gap": gap} for gap in (0.0, 0.2, 0.2, 0.2, 0.2)]
    text = text_of(write_report([make_run("a", rows)], tmp_path / "out"))
    assert "a: step 3: trainer and engines disagree" in text
    assert "3 steps like this" in text


def test_one_step_is_enough(real_figures, make_run, tmp_path):
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
def test_numbers_that_are_not_finite_are_reported_with_their_step(real_figures, make_run, tmp_path, broken):
    rows = [ROW, dict.fromkeys(ROW, broken), ROW]
    report = write_report([make_run("a", rows)], tmp_path / "out")
    assert "a: policy/reward is not finite at step 2" in text_of(report)


def test_a_run_in_which_nothing_is_finite_still_gets_a_report(real_figures, make_run, tmp_path):
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
