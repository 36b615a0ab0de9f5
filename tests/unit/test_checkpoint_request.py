"""A stopping pod gets its checkpoint, and never waits for a run that is not there."""

import os
import threading
import time
from types import SimpleNamespace

from openrlhf_mtp.checkpoint_request import REQUEST, RUNNING, answered, ask


class Time:
    def __init__(self, each=lambda: None):
        self.now, self.each = 0.0, each

    def sleep(self, seconds):
        self.now += seconds
        self.each()

    def __call__(self):
        return self.now


def test_nobody_waits_where_nothing_runs(tmp_path):
    clock = Time()
    assert ask(tmp_path, 100, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 0
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_died_is_not_waited_for(tmp_path):
    (tmp_path / RUNNING).touch()
    long_ago = time.time() - 3600
    os.utime(tmp_path / RUNNING, (long_ago, long_ago))
    clock = Time()
    assert ask(tmp_path, 100, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 0
    assert not (tmp_path / REQUEST).exists()


def test_a_request_that_is_not_answered_is_withdrawn_when_the_time_is_over(tmp_path):
    (tmp_path / RUNNING).touch()
    clock = Time()
    assert ask(tmp_path, 20, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 20
    assert not (tmp_path / REQUEST).exists()


def test_a_run_that_ends_meanwhile_ends_the_wait(tmp_path):
    (tmp_path / RUNNING).touch()
    clock = Time(each=lambda: (tmp_path / RUNNING).unlink(missing_ok=True))
    assert ask(tmp_path, 100, clock=clock, sleep=clock.sleep) is False
    assert clock.now == 1


def test_a_request_is_answered_by_the_next_step_that_saves(tmp_path):
    (tmp_path / RUNNING).touch()
    checkpoints, saved = SimpleNamespace(save_steps=float("inf")), []

    def step():
        with answered(tmp_path, checkpoints):
            saved.append(7 % checkpoints.save_steps == 0)

    step()
    result = []
    waiter = threading.Thread(target=lambda: result.append(ask(tmp_path, 30)))
    waiter.start()
    while not (tmp_path / REQUEST).exists():
        time.sleep(0.01)
    step()
    waiter.join()
    step()
    assert result == [True]
    assert saved == [False, True, False]
    assert checkpoints.save_steps == float("inf")


def test_a_save_that_fails_is_not_an_answer(tmp_path):
    (tmp_path / REQUEST).touch()
    checkpoints = SimpleNamespace(save_steps=50)
    try:
        with answered(tmp_path, checkpoints):
            raise OSError("disk full")
    except OSError:
        pass
    assert (tmp_path / REQUEST).exists()
    assert checkpoints.save_steps == 50
