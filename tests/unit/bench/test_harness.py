"""Turns, the warm-up that does not count, forms that cannot run, and the clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openrlhf_mtp.bench import harness
from openrlhf_mtp.bench.harness import Runs, UnavailableError, take_turns


def forms(names: str, order: list[str]) -> dict[str, Callable[[], int]]:
    """Forms that write their name down and return how many runs there have been."""

    def run(name: str) -> int:
        order.append(name)
        return len(order)

    return {name: lambda name=name: run(name) for name in names}


def test_each_form_runs_once_per_turn_and_the_first_turn_does_not_count() -> None:
    order: list[str] = []
    reported: list[tuple[str, int]] = []
    runs = take_turns(forms("ab", order), 2, lambda *one: reported.append(one))
    assert "".join(order) == "ababab"
    assert runs == {"a": Runs((3, 5)), "b": Runs((4, 6))}
    assert reported == [("a", 3), ("b", 4), ("a", 5), ("b", 6)]


def test_there_and_back_no_form_always_follows_the_same_one() -> None:
    order: list[str] = []
    take_turns(forms("abc", order), 2, there_and_back=True)
    assert "".join(order) == "cbaabccba"


def test_forms_that_are_warm_already_take_no_turn_that_does_not_count() -> None:
    order: list[str] = []
    runs = take_turns(forms("ab", order), 2, there_and_back=True, warm=True)
    assert "".join(order) == "abba"
    assert runs == {"a": Runs((1, 4)), "b": Runs((2, 3))}


def test_a_warm_up_that_takes_minutes_can_be_reported() -> None:
    reported: list[int] = []
    take_turns(forms("a", []), 1, lambda _, number: reported.append(number), report_warm_up=True)
    assert reported == [1, 2]


@pytest.mark.parametrize("good_runs", [0, 2])
def test_a_form_that_cannot_run_says_why_and_takes_no_more_turns(good_runs: int) -> None:
    order: list[str] = []

    def fails() -> int:
        order.append("fails")
        if order.count("fails") > good_runs:
            raise UnavailableError("out of memory")
        return 0

    runs = take_turns({"fails": fails, **forms("a", order)}, 3)
    assert runs["fails"] == Runs(problem="out of memory")
    assert len(runs["a"].counted) == 3
    assert order.count("fails") == good_runs + 1


def test_a_call_is_timed_from_before_it_to_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 3.5])
    monkeypatch.setattr(harness, "now", lambda: next(now))
    assert harness.timed(lambda: None) == 2.5


def test_the_clock_waits_for_the_gpu_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    waited: list[bool] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(True))
    for in_use in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda in_use=in_use: in_use)
        harness.now()
        assert bool(waited) is in_use


def test_a_call_within_another_counts_for_its_own_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 4.0, 6.0])  # the outer call from 0 to 6, the inner one from 1 to 4
    monkeypatch.setattr(harness, "now", lambda: next(now))

    class Step:
        def inner(self) -> None:
            pass

        def outer(self) -> None:
            self.inner()

    step, watch = Step(), harness.PartClock(("forward", "backward", "update", "head"))
    step.inner = watch.timing("head")(step.inner)
    step.outer = watch.timing("forward")(step.outer)
    step.outer()
    assert watch.drain() == {"forward": 3.0, "backward": 0.0, "update": 0.0, "head": 3.0}
    assert watch.drain()["head"] == 0.0
