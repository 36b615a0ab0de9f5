"""Figures of a benchmark against committed ones, and what is left for people and for CI."""

import json
from xml.etree import ElementTree

import pytest
import yaml

from ci import benchmark
from ci.cluster import BenchmarkError
from ci.compare import BASELINES, Expectation, compare, load_baseline, regressions
from ci.on_cluster import summary_in
from ci.results import junit, markdown, write
from openrlhf_mtp.runlog import metrics

HIGHER = Expectation("eval/accuracy", "last", 0.9, 0.05, "higher")
LOWER = Expectation("spec/logprob_gap", "mean", 0.001, 0.002, "lower")


def summary(**figures):
    return {"metrics": {name.replace("__", "/"): extent for name, extent in figures.items()}}


@pytest.mark.parametrize(
    ("expected", "got", "verdict"),
    [
        (HIGHER, 0.9, "ok"),
        (HIGHER, 0.85, "ok"),
        (HIGHER, 0.849, "worse"),
        (HIGHER, 0.96, "better"),
        (LOWER, 0.003, "ok"),
        (LOWER, 0.0031, "worse"),
        (LOWER, -0.002, "better"),
        (LOWER, float("nan"), "missing"),
    ],
)
def test_a_figure_may_be_as_far_off_as_its_tolerance_on_the_worse_side(expected, got, verdict):
    name, take = expected.metric, expected.take
    (result,) = compare({"metrics": {name: {take: got}}}, [expected])
    assert result.verdict == verdict


def test_a_figure_that_was_not_logged_is_a_regression():
    results = compare(summary(eval__accuracy={"last": 0.9}), [HIGHER, LOWER])
    assert [one.expected.metric for one in regressions(results)] == ["spec/logprob_gap"]


@pytest.mark.parametrize("name", yaml.safe_load(BASELINES.read_text(encoding="utf-8")))
def test_every_committed_figure_is_a_declared_metric(name):
    for one in load_baseline(name):
        metrics.validate({metrics.STEP: 1, one.metric: 0.0})
        assert one.tolerance > 0


def test_an_unknown_benchmark_is_said_with_the_known_ones():
    with pytest.raises(ValueError, match="got 'nope', expected one of arithmetic, tiny"):
        load_baseline("nope")


def test_a_wrong_entry_is_refused():
    with pytest.raises(ValueError, match="expected take one of first, last"):
        Expectation("eval/accuracy", "mode", 0.9, 0.05, "higher")


RESULTS = compare(summary(eval__accuracy={"last": 0.7}, spec__logprob_gap={"mean": 0.001}), [HIGHER, LOWER])


def test_the_table_shows_the_worst_first():
    lines = markdown("arithmetic", RESULTS).splitlines()
    assert lines[0] == "### arithmetic: 1 regression(s)"
    assert lines[4] == "| eval/accuracy (last) | 0.7 | 0.9 | ≥ 0.85 | **worse** |"
    assert lines[5] == "| spec/logprob_gap (mean) | 0.001 | 0.001 | ≤ 0.003 | ok |"


def test_junit_counts_failures_and_errors():
    suite = ElementTree.fromstring(junit("arithmetic", RESULTS, 12.3))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert suite.find("testcase/failure").get("message") == "0.7, the limit is 0.85"
    broken = ElementTree.fromstring(junit("arithmetic", [], 1.0, "line one\nout of memory"))
    assert (broken.get("tests"), broken.get("errors")) == ("1", "1")
    assert broken.find("testcase/error").get("message") == "out of memory"


def test_everything_is_written_and_shown_where_github_looks(tmp_path):
    shown = tmp_path / "summary.md"
    write(tmp_path / "out", "arithmetic", RESULTS, 12.3, step_summary=shown)
    assert shown.read_text(encoding="utf-8") == (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    content = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [one["verdict"] for one in content["results"]] == ["worse", "ok"]


def test_the_summary_is_the_last_one_printed():
    assert summary_in('x\nsummary: {"steps": 1}\nsummary: {"steps": 2}\nbye\n') == {"steps": 2}
    with pytest.raises(BenchmarkError, match="without a summary"):
        summary_in("nothing\n")


@pytest.fixture
def arguments(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("actor: {}\n", encoding="utf-8")
    values = tmp_path / "values.yaml"
    values.write_text("job: {overrides: [a=1], retries: 3}\nimage: {digest: x}\n", encoding="utf-8")
    words = ["arithmetic", "--job", str(job), "--out", str(tmp_path / "out"), "--values", str(values)]
    return [*words, "--set", "b=2", "--image", "host:5000/team/x:1.0-cpu", "--deadline-s", "600"]


def test_values_files_the_job_and_the_image_make_the_values(arguments):
    values = benchmark.chart_values(benchmark.parser().parse_args(arguments))
    assert values["job"] == {
        "overrides": ["a=1", "b=2"],
        "retries": 0,
        "config": "actor: {}\n",
        "deadlineSeconds": 600,
    }
    assert values["image"] == {"digest": "", "repository": "host:5000/team/x", "tag": "1.0-cpu"}


@pytest.mark.parametrize(
    ("figures", "code"),
    [({"last": 0.9, "mean": 3.54, "min": 3.5}, 1), (None, 2)],
    ids=["a figure is missing", "the run failed"],
)
def test_the_exit_code_tells_a_regression_from_a_failure(arguments, tmp_path, monkeypatch, figures, code):
    def run(_):
        if figures is None:
            raise BenchmarkError("no end within 600 s")
        return summary(eval__accuracy=figures)

    monkeypatch.setattr(benchmark, "run_on_cluster", run)
    monkeypatch.setattr(benchmark.signal, "signal", lambda *_: None)
    assert benchmark.main(arguments) == code
    assert (tmp_path / "out" / "junit.xml").exists()
    assert ("no end within" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")) == (code == 2)
