"""Waits end at their deadline, and an error in what is waited for ends them at once."""

import time
from concurrent.futures import Future
from typing import Any

import pytest

from openrlhf_mtp.sync.errors import SyncError, SyncTimeout
from openrlhf_mtp.sync.waiting import Background, Calls, Deadline, poll
from tests.patience import seconds


def done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def test_polling_stops_at_the_deadline():
    begin = time.monotonic()
    assert not poll(lambda: False, Deadline(0.1))
    assert 0.1 <= time.monotonic() - begin < seconds(2)
    assert poll(lambda: True, Deadline(0.0))


def test_an_error_in_the_background_reaches_the_one_who_asks():
    call = Background(lambda: 1 / 0)
    assert poll(call.done, Deadline(seconds(5)))
    with pytest.raises(ZeroDivisionError):
        call.result()


def test_answers_come_in_the_order_of_the_engines() -> None:
    assert Calls("sync_round", [done("first"), done("second")]).results(Deadline(0.0)) == ["first", "second"]


def test_a_call_that_failed_is_named_before_others_have_answered() -> None:
    calls = Calls("sync_round", [Future(), failed(ValueError("no weights"))])
    for wait in (calls.check, lambda: calls.results(Deadline(seconds(60)))):
        with pytest.raises(SyncError, match=r"^sync_round failed in engine 1: no weights$"):
            wait()


def test_engines_that_do_not_answer_are_named_with_the_setting_that_sets_how_long() -> None:
    calls = Calls("sync_manifest", [Future(), done({}), Future()])
    with pytest.raises(
        SyncTimeout, match=r"no answer from engine 0, 2 within 0\.01 s \(mtp\.x sets how long\)"
    ):
        calls.results(Deadline(0.01, "mtp.x"))
