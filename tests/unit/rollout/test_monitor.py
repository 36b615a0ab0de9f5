import sys
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf_mtp.config.settings.mtp import GuardSettings
from openrlhf_mtp.rollout.monitor import EngineMonitor, fetch_counters
from openrlhf_mtp.rollout.stats import EngineCounters


def after(drafts: int, accepted: int) -> EngineCounters:
    return EngineCounters(drafts, drafts, accepted, (accepted,), drafts + accepted, float(drafts))


def monitor(readings: list[EngineCounters], settings: GuardSettings | None = None) -> EngineMonitor:
    queue = iter([[reading] for reading in readings])
    return EngineMonitor(["engine"], settings or GuardSettings(), fetch=lambda engines: next(queue))


def test_each_call_reports_what_happened_since_the_last() -> None:
    watched = monitor([after(0, 0), after(10, 5), after(30, 20)])
    assert watched.measure(1.0)["spec/mean_acceptance_length"] == pytest.approx(1.5)
    assert watched.measure(1.0)["spec/mean_acceptance_length"] == pytest.approx(1.75)


def test_an_evaluation_is_left_out_of_the_next_step() -> None:
    watched = monitor([after(0, 0), after(100, 0), after(110, 10)])
    assert watched.measure(0.0) == {}
    assert watched.measure(1.0)["spec/mean_acceptance_length"] == pytest.approx(2.0)


def test_a_look_in_between_takes_nothing_from_the_step() -> None:
    watched = monitor([after(0, 0), after(5, 5), after(10, 5)])
    assert watched.generated() == (10, 0)
    assert watched.measure(1.0)["spec/drafts"] == 10.0


def test_what_ran_before_the_monitor_is_not_counted() -> None:
    watched = monitor([after(50, 0), after(60, 10)])
    assert watched.measure(1.0)["spec/drafts"] == 10.0


def test_the_engines_are_held_against_what_the_trainer_promised() -> None:
    watched = monitor([after(0, 0), after(10, 6), after(20, 12)])
    assert watched.measure(1.0, {"mtp/reach/depth_1": 0.75})["spec/alpha_gap"] == pytest.approx(0.15)
    assert "spec/alpha_gap" not in watched.measure(1.0)


def test_the_gap_in_tokens_comes_with_the_replays_standard_error() -> None:
    watched = monitor([after(0, 0), after(100, 60)])
    row = watched.measure(1.0, {"mtp/replayed_length": 1.75, "mtp/replayed_length_se": 0.04})
    assert row["spec/length_gap"] == pytest.approx(0.15)
    assert row["spec/length_gap_se"] == pytest.approx(0.04)


def test_a_collapse_is_an_alarm() -> None:
    watched = monitor([after(0, 0), after(10, 10), after(20, 10)], GuardSettings(patience=1))
    assert watched.check(1, watched.measure(1.0)) is None
    alarm = watched.check(2, watched.measure(1.0))
    assert alarm is not None
    assert "collapsed" in alarm.text


def test_the_trainers_log_prob_gap_is_under_guard_too() -> None:
    watched = monitor([after(0, 0), after(10, 10)], GuardSettings(max_logprob_gap=0.02))
    alarm = watched.check(1, {**watched.measure(1.0), "spec/logprob_gap": 0.03})
    assert alarm is not None
    assert "0.0300 nats" in alarm.text


def test_whoever_looks_at_the_counters_in_between_takes_no_ended_response(monkeypatch) -> None:
    taken: list[bool] = []

    def asked(*, take_ended: bool) -> dict[str, Any]:
        taken.append(take_ended)
        return after(10, 5).to_dict()

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=list))
    engine = SimpleNamespace(rollout_stats=SimpleNamespace(remote=asked))
    watched = EngineMonitor([engine], GuardSettings())
    fetch_counters([engine])
    watched.measure(1.0)
    assert taken == [True, False, True]
