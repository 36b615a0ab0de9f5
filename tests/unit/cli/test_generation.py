"""Generation for the pre-RL stage: two shards in flight, and progress from the engines' counters."""

from __future__ import annotations

import threading

from openrlhf_mtp.cli import generation
from openrlhf_mtp.cli.generation import Generated, _two_at_a_time, watched
from openrlhf_mtp.rollout.stats import EngineCounters
from openrlhf_mtp.runlog.generation_progress import GenerationProgress
from tests.patience import seconds


def counters(tokens: int, finished: int) -> EngineCounters:
    return EngineCounters(tokens, 1.0, finished)


def eight() -> GenerationProgress:
    progress = GenerationProgress()
    progress.expect(8, 800)
    return progress


def test_the_next_shard_is_submitted_before_one_is_waited_for() -> None:
    events: list[str] = []

    def submit(number: int) -> list[str]:
        events.append(f"submit {number}")
        return [f"response {number}"]

    for number, references in _two_at_a_time([0, 2, 3], submit):
        assert references == [f"response {number}"]
        events.append(f"wait {number}")
    assert events == ["submit 0", "submit 2", "wait 0", "submit 3", "wait 2", "wait 3"]


def test_one_shard_is_submitted_and_waited_for() -> None:
    assert list(_two_at_a_time([4], lambda number: [number])) == [(4, [4])]


def test_progress_adds_up_the_engines_and_is_whole_at_the_end(monkeypatch) -> None:
    looked = threading.Event()
    now = [counters(30, 0), counters(12, 1)]

    def fetch(engines):
        looked.set()
        return now

    monkeypatch.setattr(generation, "fetch_counters", fetch)
    monkeypatch.setattr(generation, "LOOK_EVERY_S", 0.001)
    count = Generated(eight())
    assert not count.has_begun
    with watched([], count):
        assert looked.wait(seconds(10))
        while not count.has_begun:
            pass
        assert (count.done, count.total) == (1, 8)
        assert str(count).startswith("1/8 responses, 42 tokens")
        now = [counters(100, 4), counters(90, 4)]
        while count.done < count.total:
            pass


def test_an_engine_that_does_not_answer_ends_the_looking_and_not_the_work(monkeypatch) -> None:
    asked = threading.Event()

    def fetch(engines):
        asked.set()
        raise RuntimeError("the engine ended")

    monkeypatch.setattr(generation, "fetch_counters", fetch)
    monkeypatch.setattr(generation, "LOOK_EVERY_S", 0.001)
    count = Generated(eight())
    with watched([], count):
        assert asked.wait(seconds(10))
    assert count.done == 0
