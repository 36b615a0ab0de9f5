"""Buckets in shared memory between real processes: whoever dies, stops or gives up ends the round of the others in
time, by name, and no memory stays behind."""

import signal

import pytest

from tests.handover_rounds import GIVES_UP, TIMEOUT_S, assert_ended_in_time_and_clean, run


def test_a_round_without_fault_leaves_no_memory_behind():
    ends = run({})
    assert [(end.error, end.kept) for end in ends.values()] == [("", [])] * 3


@pytest.mark.parametrize(
    "fault", [signal.SIGKILL, signal.SIGSTOP, GIVES_UP], ids=["killed", "stopped", "gives up"]
)
def test_a_worker_that_dies_stalls_or_gives_up_is_named_with_the_bucket(fault: int):
    ends = run({1: fault})
    assert_ended_in_time_and_clean(ends)
    place = "sync trainer rank 0 (ipc): round 1 policy bucket 4/6: "
    why = {
        signal.SIGKILL: "engine 0 worker 0 is gone",
        signal.SIGSTOP: f"nothing from engine 0 worker 0 within {TIMEOUT_S:g} s",
        GIVES_UP: "another rank gave up: sync engine 0 worker 0 (ipc): the weights are on fire",
    }[fault]  # type: ignore[index]
    assert ends[0].message.startswith(place + why)
    assert f"another rank gave up: {place}" in ends[2].message, "the other worker hears of it"
    if fault != signal.SIGSTOP:
        assert ends[0].seconds < TIMEOUT_S, "noticed at once"


@pytest.mark.parametrize(
    "fault", [signal.SIGKILL, signal.SIGSTOP, GIVES_UP], ids=["killed", "stopped", "gives up"]
)
def test_a_trainer_that_dies_stalls_or_gives_up_is_named_by_the_workers(fault: int):
    ends = run({0: fault})
    assert_ended_in_time_and_clean(ends)
    why = {
        signal.SIGKILL: "trainer rank 0 is gone",
        signal.SIGSTOP: f"nothing from trainer rank 0 within {TIMEOUT_S:g} s",
        GIVES_UP: "another rank gave up: sync trainer rank 0 (ipc): the weights are on fire",
    }[fault]  # type: ignore[index]
    for number in (1, 2):
        message = ends[number].message
        assert message.startswith(
            f"sync engine {number - 1} worker 0 (ipc): round 1 policy bucket 4/6: {why}"
        )
