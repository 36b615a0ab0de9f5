import pytest

from openrlhf_mtp.config.settings.mtp import GuardSettings
from openrlhf_mtp.rollout.guard import AcceptanceGuard, Alarm

LENGTH = "spec/mean_acceptance_length"


def run(guard: AcceptanceGuard, lengths: list[float]) -> dict[int, Alarm]:
    """Alarms by step."""
    found = {step: guard.update(step, {LENGTH: length}) for step, length in enumerate(lengths, start=1)}
    return {step: alarm for step, alarm in found.items() if alarm is not None}


def test_a_steady_run_is_let_pass() -> None:
    assert run(AcceptanceGuard(GuardSettings()), [3.0, 2.9, 2.2, 3.1, 2.5]) == {}


def test_a_collapse_is_reported_with_start_floor_and_the_steps() -> None:
    guard = AcceptanceGuard(GuardSettings(min_fraction_of_start=0.5, patience=2, warmup_steps=1))
    message = run(guard, [3.0, 2.9, 1.4, 1.3])[4].text
    assert "step 3: 1.400, step 4: 1.300" in message
    assert "started at 3.000" in message
    assert "below 2.000" in message
    assert "mtp.guard.min_fraction_of_start = 0.5" in message


def test_a_collapse_costs_speed_only_and_does_not_end_a_run_unless_asked() -> None:
    (warned,) = run(AcceptanceGuard(GuardSettings(patience=1)), [3.0, 1.1]).values()
    (ended,) = run(AcceptanceGuard(GuardSettings(patience=1, action="stop")), [3.0, 1.1]).values()
    assert not warned.stops
    assert "The run continues" in warned.text
    assert ended.stops
    assert "A checkpoint was saved" in ended.text


def test_one_collapse_is_one_alarm_and_the_next_is_another() -> None:
    guard = AcceptanceGuard(GuardSettings(patience=2))
    assert list(run(guard, [3.0, 1.1, 1.1, 1.1, 1.1, 2.9, 1.1, 1.1, 1.1])) == [3, 8]


def test_the_fraction_applies_to_the_gain_not_to_the_length() -> None:
    # 1.6 is more than half of 3.0, but only a third of the two extra tokens is left
    assert run(AcceptanceGuard(GuardSettings(min_fraction_of_start=0.5, patience=1)), [3.0, 1.6])


def test_one_bad_step_within_the_patience_is_forgiven() -> None:
    assert run(AcceptanceGuard(GuardSettings(patience=2)), [3.0, 1.1, 2.9, 1.1, 2.9]) == {}


def test_the_start_is_the_mean_of_the_warm_up() -> None:
    guard = AcceptanceGuard(GuardSettings(warmup_steps=3))
    run(guard, [2.0, 3.0, 4.0])
    assert guard.start == pytest.approx(3.0)


def test_the_absolute_threshold_holds_when_the_start_was_poor() -> None:
    guard = AcceptanceGuard(GuardSettings(min_acceptance_length=1.5, patience=1))
    assert "below 1.500" in run(guard, [1.6, 1.4])[2].text


def test_steps_without_drafts_are_ignored() -> None:
    guard = AcceptanceGuard(GuardSettings(patience=1))
    guard.update(1, {LENGTH: 3.0})
    assert guard.update(2, {}) is None
    assert guard.start == 3.0


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_a_log_prob_gap_above_the_limit_stops_the_run(action) -> None:
    guard = AcceptanceGuard(GuardSettings(max_logprob_gap=0.02, action=action))
    assert guard.update(1, {LENGTH: 3.0, "spec/logprob_gap": 0.019}) is None
    alarm = guard.update(2, {LENGTH: 3.0, "spec/logprob_gap": 0.05})
    assert alarm is not None
    assert alarm.stops, "the samples are wrong, which nobody wants to go on with who has set a limit"
    assert "step 2: engine and trainer disagree by 0.0500 nats" in alarm.text


def test_without_a_limit_the_gap_is_only_logged() -> None:
    assert AcceptanceGuard(GuardSettings()).update(1, {LENGTH: 3.0, "spec/logprob_gap": 9.0}) is None
