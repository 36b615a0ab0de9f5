import sys
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf_mtp.config.settings.mtp import GuardSettings
from openrlhf_mtp.rollout.ended_responses import EndedResponses
from openrlhf_mtp.rollout.monitor import EngineMonitor, count_generated, fetch_counters
from openrlhf_mtp.rollout.stats import EngineCounters


class Engine:
    """Stands for an engine's Ray handle: drafts one token at a time, and hands out each ended response once."""

    def __init__(self) -> None:
        self.tokens = self.drafts = self.accepted = 0
        self.waiting: list[EndedResponses] = []
        self.asked_to_give: list[bool] = []
        self.rollout_stats = SimpleNamespace(remote=self.stats)

    def run_to(self, drafts: int, accepted: int) -> None:
        """Draft until so many drafts and accepted tokens are reached since the start."""
        more, got = drafts - self.drafts, accepted - self.accepted
        if more:
            each = [1] * got + [0] * (more - got)
            self.waiting.append(EndedResponses.of(more + got + 1, each, [1] * more, depths=1))
        self.drafts, self.accepted, self.tokens = drafts, accepted, drafts + accepted

    def stats(self, *, take_ended: bool) -> dict[str, Any]:
        self.asked_to_give.append(take_ended)
        ended = EndedResponses.joined(self.waiting) if take_ended else EndedResponses()
        if take_ended:
            self.waiting = []
        return EngineCounters(self.tokens, float(self.drafts), 0, ended).to_dict()


class Watched(EngineMonitor):
    """A monitor whose engine reaches the next of some totals before each measurement."""

    def __init__(self, totals: list[tuple[int, int]], settings: GuardSettings | None = None) -> None:
        self.engine, self.totals = Engine(), iter(totals)
        self.engine.run_to(*next(self.totals))
        super().__init__([self.engine], settings or GuardSettings())

    def measure(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self.engine.run_to(*next(self.totals))
        return super().measure(*args, **kwargs)


@pytest.fixture(autouse=True)
def ray(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=list))


def test_each_call_reports_what_happened_since_the_last() -> None:
    watched = Watched([(0, 0), (10, 5), (30, 20)])
    assert watched.measure(1.0)["spec/mean_acceptance_length"] == pytest.approx(1.5)
    assert watched.measure(1.0)["spec/mean_acceptance_length"] == pytest.approx(1.75)


def test_an_evaluation_is_left_out_of_the_next_step() -> None:
    watched = Watched([(0, 0), (100, 0), (110, 10)])
    assert watched.measure(0.0) == {}
    assert watched.measure(1.0)["spec/mean_acceptance_length"] == pytest.approx(2.0)


def test_a_look_in_between_takes_nothing_from_the_step() -> None:
    watched = Watched([(0, 0), (10, 5)])
    watched.engine.run_to(5, 5)
    assert count_generated([watched.engine]) == (10, 0)
    assert watched.measure(1.0)["spec/drafts"] == 10.0


def test_what_ran_before_the_monitor_is_not_counted() -> None:
    watched = Watched([(50, 0), (60, 10)])
    assert watched.measure(1.0)["spec/drafts"] == 10.0


def test_the_engines_are_held_against_what_the_trainer_promised() -> None:
    watched = Watched([(0, 0), (10, 6), (20, 12)])
    assert watched.measure(1.0, {"mtp/reach/depth_1": 0.75})["spec/alpha_gap"] == pytest.approx(0.15)
    assert "spec/alpha_gap" not in watched.measure(1.0)


def test_the_gap_in_tokens_comes_with_the_replays_standard_error() -> None:
    watched = Watched([(0, 0), (100, 60)])
    row = watched.measure(1.0, {"mtp/replayed_length": 1.75, "mtp/replayed_length_se": 0.04})
    assert row["spec/length_gap"] == pytest.approx(0.15)
    assert row["spec/length_gap_se"] == pytest.approx(0.04)


def test_a_collapse_is_an_alarm() -> None:
    watched = Watched([(0, 0), (10, 10), (20, 10)], GuardSettings(patience=1))
    assert watched.check(1, watched.measure(1.0)) is None
    alarm = watched.check(2, watched.measure(1.0))
    assert alarm is not None
    assert "collapsed" in alarm.text


def test_the_trainers_log_prob_gap_is_under_guard_too() -> None:
    watched = Watched([(0, 0), (10, 10)], GuardSettings(max_logprob_gap=0.02))
    alarm = watched.check(1, {**watched.measure(1.0), "spec/logprob_gap": 0.03})
    assert alarm is not None
    assert "0.0300 nats" in alarm.text


def test_whoever_looks_at_the_counters_in_between_takes_no_ended_response() -> None:
    watched = Watched([(0, 0), (10, 5)])
    fetch_counters([watched.engine])
    count_generated([watched.engine])
    watched.measure(1.0)
    assert watched.engine.asked_to_give == [True, False, False, True]


def test_every_acceptance_of_a_step_is_of_the_same_drafts() -> None:
    """Also while a response still runs: its drafts count when it ends."""
    watched = Watched([(0, 0), (30, 20)])
    watched.engine.run_to(10, 5)
    watched.engine.tokens += 7
    row = watched.measure(1.0)
    lengths = [row[f"spec/mean_acceptance_length/quarter_{q}"] for q in (1, 2, 3, 4)]
    assert min(lengths) <= row["spec/mean_acceptance_length"] <= max(lengths)
    assert row["spec/mean_acceptance_length"] == pytest.approx(1 + 20 / 30)
