"""Stages: finished work is not done twice, and a failure is words, a log, and a way to go on."""

import io
import shutil

import pytest
from rich.console import Console

from openrlhf_mtp.cli.progress.estimate import Part
from openrlhf_mtp.cli.progress.line import Whole
from openrlhf_mtp.cli.quickstart.stages import Marks, Stage, StageFailed, StageInterrupted, run_stages


class Pipeline:
    """Two stages, each with an input file; `ran` holds those that ran, `ends` what an attempt raises, by stage."""

    def __init__(self, folder):
        self.folder, self.log = folder, folder / "log"
        self.ran, self.ends, self.screen = [], {}, io.StringIO()
        for name in ("first", "second"):
            (folder / f"{name}.txt").write_text(name)

    def attempt(self, name, resume):
        self.ran.append(f"{name}, resumed" if resume else name)
        ends = self.ends.get(name, [])
        if ends:
            raise ends.pop(0)

    def run(self):
        stages = [
            Stage(
                name,
                f"does the {name} thing",
                [self.folder / f"{name}.txt"],
                [Part(name, 1.0)],
                lambda resume, name=name: self.attempt(name, resume),
            )
            for name in ("first", "second")
        ]
        whole = Whole([stage.stage_parts for stage in stages], Console(file=self.screen, width=200))
        return run_stages(stages, Marks(self.folder / "marks"), whole, self.log)


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


def test_a_stage_that_fails_is_named_with_the_reason_and_its_traceback_is_in_the_log(pipeline):
    pipeline.ends = {"second": [ValueError("the moon is full")]}
    with pytest.raises(StageFailed) as failure:
        pipeline.run()
    assert str(failure.value).splitlines() == [
        "stage 2 of 2, second (does the second thing), failed:",
        "  ValueError: the moon is full",
        f"log: {pipeline.log}",
    ]
    assert "Traceback" in pipeline.log.read_text()
    assert "in attempt" in pipeline.log.read_text()


def test_a_stage_that_failed_continues_at_the_next_call(pipeline):
    pipeline.ends = {"first": [ValueError("once")]}
    with pytest.raises(StageFailed):
        pipeline.run()
    pipeline.run()
    assert pipeline.ran == ["first", "first, resumed", "second"]
    pipeline.run()
    assert len(pipeline.ran) == 3


def test_a_stage_that_cannot_resume_restarts_once(pipeline):
    pipeline.ends = {"first": [ValueError("once"), ValueError("damaged"), ValueError("for good")]}
    with pytest.raises(StageFailed, match="once"):
        pipeline.run()
    with pytest.raises(StageFailed, match="for good"):
        pipeline.run()
    assert pipeline.ran == ["first", "first, resumed", "first"]
    assert "damaged" in pipeline.screen.getvalue()


def test_an_attempt_on_other_inputs_is_not_resumed(pipeline):
    pipeline.ends = {"first": [ValueError("once")]}
    with pytest.raises(StageFailed):
        pipeline.run()
    (pipeline.folder / "first.txt").write_text("changed")
    pipeline.run()
    assert pipeline.ran == ["first", "first", "second"]


def test_an_interrupt_names_its_stage_and_can_be_resumed(pipeline):
    pipeline.ends = {"first": [KeyboardInterrupt()]}
    with pytest.raises(StageInterrupted, match="stage 1 of 2, first"):
        pipeline.run()
    pipeline.run()
    assert pipeline.ran[1] == "first, resumed"


def test_a_library_that_exits_has_failed(pipeline):
    pipeline.ends = {"first": [SystemExit(0)]}
    with pytest.raises(StageFailed, match="SystemExit"):
        pipeline.run()


def test_a_missing_module_is_answered_with_set_up(pipeline):
    pipeline.ends = {"first": [ModuleNotFoundError("No module named 'ray'")]}
    with pytest.raises(StageFailed, match=r"No module named 'ray'\n.*run make setup"):
        pipeline.run()


def test_files_that_cannot_be_copied_are_one_reason(pipeline):
    pipeline.ends = {
        "first": [shutil.Error([("a", "b", "[Errno 28] No space left"), ("c", "d", "the same")])]
    }
    with pytest.raises(StageFailed, match=r"copying failed: \[Errno 28\] No space left \(2 in all\)"):
        pipeline.run()


def test_a_log_that_cannot_be_written_hides_nothing(pipeline):
    pipeline.log.mkdir()
    pipeline.ends = {"first": [ValueError("the moon is full")]}
    with pytest.raises(StageFailed, match=r"the moon is full\nno log: .*Is a directory"):
        pipeline.run()


@pytest.mark.parametrize("text", ['{"fing', "[]", "null", '"text"', "\x00"])
def test_a_mark_that_is_damaged_counts_as_unfinished(pipeline, text):
    pipeline.run()
    (pipeline.folder / "marks" / "first.json").write_text(text)
    pipeline.run()
    assert pipeline.ran == ["first", "second", "first"]
