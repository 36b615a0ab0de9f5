"""A stopping pod gets its checkpoint, and never waits for a run that is not there."""

import contextlib
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from openrlhf_mtp.runlog.checkpoint_request import (
    REQUEST,
    RUNNING,
    STEPPING,
    WAIT,
    accept,
    ask,
    request_on_sigterm,
    serve_request,
)
from tests.patience import seconds


class Time:
    def __init__(self, each=lambda: None):
        self.now, self.each = 0.0, each

    def sleep(self, seconds):
        self.now += seconds
        self.each()

    def __call__(self):
        return self.now


@pytest.fixture
def run(tmp_path):
    """The folder of a run that takes steps."""
    (tmp_path / RUNNING).touch()
    accept(tmp_path)
    return tmp_path


def test_nobody_waits_where_nothing_runs(tmp_path):
    clock = Time()
    assert ask(tmp_path, 100, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 0
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_does_not_step_yet_is_not_waited_for(tmp_path):
    (tmp_path / RUNNING).touch()  # it checks its pods, prepares data or starts its engines
    clock = Time()
    assert ask(tmp_path, 100, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 0
    assert [path.name for path in tmp_path.iterdir()] == [RUNNING]


def test_a_run_that_died_is_not_waited_for(run):
    long_ago = time.time() - 3600
    os.utime(run / RUNNING, (long_ago, long_ago))
    clock = Time()
    assert ask(run, 100, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 0
    assert not (run / REQUEST).exists()


def test_a_request_that_is_not_answered_is_withdrawn_when_the_time_is_over(run):
    clock = Time()
    assert ask(run, 20, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 20
    assert not (run / REQUEST).exists()


def test_a_run_that_ends_meanwhile_ends_the_wait(run):
    clock = Time(each=lambda: (run / RUNNING).unlink(missing_ok=True))
    assert ask(run, 100, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 1


def test_a_request_is_answered_by_the_next_step_that_saves(run):
    checkpoints, saved = SimpleNamespace(save_steps=float("inf")), []

    def step():
        with serve_request(run, checkpoints):
            saved.append(7 % checkpoints.save_steps == 0)

    step()
    result = []
    waiter = threading.Thread(target=lambda: result.append(ask(run, seconds(30))))
    waiter.start()
    while not (run / REQUEST).exists():
        time.sleep(0.01)
    step()
    waiter.join()
    step()
    assert result == [True]
    assert ask(run, seconds(30)) is False  # the run ends with the first pod that asked
    assert saved == [False, True, False]
    assert checkpoints.save_steps == float("inf")


def test_a_save_that_fails_is_not_an_answer(run):
    (run / REQUEST).touch()
    checkpoints = SimpleNamespace(save_steps=50)
    try:
        with serve_request(run, checkpoints):
            raise OSError("disk full")
    except OSError:
        pass
    assert (run / REQUEST).exists()
    assert checkpoints.save_steps == 50


class Ended(Exception):
    """What the driver's own handler of SIGTERM does."""


@pytest.mark.parametrize("failure", [None, Ended])
def test_a_run_that_has_ended_answers_no_more(run, failure):
    with contextlib.suppress(Ended), request_on_sigterm(run):
        if failure:
            raise failure
    assert not (run / STEPPING).exists()


@pytest.fixture
def own_handler():
    def end(number, frame):
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    yield end
    signal.signal(signal.SIGTERM, before)


def test_a_driver_that_is_ended_waits_for_the_step_and_then_ends_as_it_would_have(
    run, own_handler, monkeypatch
):
    monkeypatch.setenv(WAIT, str(seconds(30)))
    requested = []

    def controller():
        while not (run / REQUEST).exists():
            time.sleep(0.01)
        requested.append(True)
        with serve_request(run, SimpleNamespace(save_steps=50)):
            pass

    threading.Thread(target=controller, daemon=True).start()
    with pytest.raises(Ended), request_on_sigterm(run):
        os.kill(os.getpid(), signal.SIGTERM)
    assert requested == [True]
    assert not (run / REQUEST).exists()
    assert not (run / STEPPING).exists()
    assert signal.getsignal(signal.SIGTERM) is own_handler


def test_a_driver_without_a_step_to_wait_for_ends_at_once(tmp_path, own_handler, monkeypatch):
    monkeypatch.setenv(WAIT, str(seconds(30)))
    started = time.monotonic()
    with pytest.raises(Ended), request_on_sigterm(tmp_path):
        os.kill(os.getpid(), signal.SIGTERM)
    assert time.monotonic() - started < seconds(10), "it waited"
    assert list(tmp_path.iterdir()) == []
