"""A rollout's progress: told from the engines' counters, by a thread that can neither delay nor end the rollout."""

from __future__ import annotations

import threading

import pytest

from openrlhf_mtp.runlog.activity import read_activities
from openrlhf_mtp.runlog.generation_progress import GenerationProgress
from openrlhf_mtp.training.controller import rollout_progress
from openrlhf_mtp.training.controller.rollout_progress import told_progress
from tests.patience import seconds


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(rollout_progress, "LOOK_EVERY_S", 0.001)
    monkeypatch.setattr("openrlhf_mtp.runlog.activity.SAY_EVERY_S", 0.0)


def test_what_the_engines_did_before_does_not_count(tmp_path) -> None:
    counters = iter([(1000, 50)])
    progress = GenerationProgress()
    progress.expect(8, 800)
    with told_progress(tmp_path, "rollout", progress, lambda: next(counters, (1120, 53))):
        while not read_activities(tmp_path).startswith("rollout 3/8 responses, 120 tokens"):
            pass
    assert read_activities(tmp_path) == ""


def test_an_engine_that_does_not_answer_holds_nothing_up(tmp_path) -> None:
    never = threading.Event()

    def asked() -> tuple[int, int]:
        never.wait(seconds(60))
        return 0, 0

    with told_progress(tmp_path, "rollout", GenerationProgress(), asked):
        pass
    never.set()


def test_no_engine_to_ask_is_no_error(tmp_path) -> None:
    def asked() -> tuple[int, int]:
        raise AttributeError("no engine here")

    with told_progress(tmp_path, "rollout", GenerationProgress(), asked):
        assert read_activities(tmp_path) == ""
