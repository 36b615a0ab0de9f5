"""Stages: finished work is not done twice, and work on changed inputs is never taken for finished."""

import io

import pytest
from rich.console import Console

from openrlhf_mtp.cli.stages import Stage, run_stages


class Pipeline:
    """Two stages, each with an input file, and a list of those that ran."""

    def __init__(self, folder):
        self.folder = folder
        self.ran = []
        for name in ("first", "second"):
            (folder / f"{name}.txt").write_text(name)

    def run(self):
        stages = [
            Stage(name, "works", [self.folder / f"{name}.txt"], lambda name=name: self.ran.append(name))
            for name in ("first", "second")
        ]
        return run_stages(stages, self.folder / "marks", Console(file=io.StringIO()))


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path)


def test_a_second_call_does_nothing_and_reports_the_times_of_the_first(pipeline):
    first = pipeline.run()
    assert pipeline.run() == first
    assert pipeline.ran == ["first", "second"]


def test_a_changed_input_runs_its_stage_and_all_after_it(pipeline):
    pipeline.run()
    (pipeline.folder / "second.txt").write_text("changed")
    pipeline.run()
    assert pipeline.ran == ["first", "second", "second"]
    (pipeline.folder / "first.txt").write_text("changed")
    pipeline.run()
    assert pipeline.ran[3:] == ["first", "second"]


def test_a_stage_that_failed_runs_again(pipeline):
    def fail(name):
        raise RuntimeError(name)

    worked = pipeline.ran
    pipeline.ran = type("Failing", (), {"append": staticmethod(fail)})()
    with pytest.raises(RuntimeError, match="first"):
        pipeline.run()
    pipeline.ran = worked
    pipeline.run()
    assert worked == ["first", "second"]


def test_a_mark_cut_off_by_a_crash_counts_as_unfinished(pipeline):
    pipeline.run()
    (pipeline.folder / "marks" / "first.json").write_text('{"fing')
    pipeline.run()
    assert pipeline.ran == ["first", "second", "first"]
