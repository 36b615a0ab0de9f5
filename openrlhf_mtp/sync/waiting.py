"""Waits that always end: deadlines, polling, calls to engines, and library calls that know no deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from openrlhf_mtp.sync.errors import SyncError, SyncTimeout

ROUND_LIMIT = "mtp.sync.timeout_s"

POLL_S = (
    0.0005,
    0.002,
)  # first and longest pause between two looks at a running operation; a bucket takes 3 ms on NVLink


class Deadline:
    """A point in time.

    Args:
        seconds: from now.
        setting: the setting that moves it, for messages.
    """

    def __init__(self, seconds: float, setting: str = "") -> None:
        self.seconds, self.setting = seconds, setting
        self._end = time.monotonic() + seconds

    def __str__(self) -> str:
        return f"{self.seconds:g} s" + (f" ({self.setting} sets how long)" if self.setting else "")

    def remaining(self) -> float:
        """Seconds until then, never below zero."""
        return max(0.0, self._end - time.monotonic())

    def passed(self) -> bool:
        """Whether it is over."""
        return self.remaining() == 0.0


def no_watch() -> None:
    """Nothing else to look at while waiting."""


def poll(done: Callable[[], bool], deadline: Deadline, watch: Callable[[], None] = no_watch) -> bool:
    """Look until `done()` says so (True) or the deadline passes (False).

    Args:
        done: asked again and again, with growing pauses.
        deadline: when to stop.
        watch: called in every turn; may raise to end the wait at once.
    """
    pause, longest = POLL_S
    while not done():
        watch()
        if deadline.passed():
            return False
        time.sleep(min(pause, deadline.remaining()))
        pause = min(2 * pause, longest)
    return True


class Background:
    """One call in a daemon thread, for library calls that know no deadline (connecting, asking the store)."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: BaseException | None = None

        def body() -> None:
            try:
                self._value = call()
            except BaseException as error:  # handed to the waiting thread by result()
                self._error = error

        self._thread = threading.Thread(target=body, daemon=True, name="mtp-sync")
        self._thread.start()

    def done(self) -> bool:
        """Whether the call has returned or raised."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """The result of the call; raises the error that it raised."""
        if self._error is not None:
            raise self._error
        return self._value


class Calls:
    """The same call to every engine, under way.

    Args:
        what: the method, for errors.
        answers: one future per engine, in the engines' order.
    """

    def __init__(self, what: str, answers: Sequence[Future[Any]]) -> None:
        self._what, self._answers = what, answers

    def check(self) -> None:
        """Return at once.

        Raises:
            SyncError: a call has failed; names its engine.
        """
        for number, answer in enumerate(self._answers):
            error = answer.exception() if answer.done() else None
            if error is not None:
                raise SyncError(f"{self._what} failed in engine {number}: {error}") from error

    def results(self, deadline: Deadline) -> list[Any]:
        """Wait for all answers.

        Raises:
            SyncError: a call has failed.
            SyncTimeout: the deadline passed; names the engines that have not answered.
        """
        while not all(answer.done() for answer in self._answers):
            self.check()
            if deadline.passed():
                late = ", ".join(str(i) for i, answer in enumerate(self._answers) if not answer.done())
                raise SyncTimeout(f"{self._what}: no answer from engine {late} within {deadline}")
            time.sleep(0.002)
        self.check()
        return [answer.result() for answer in self._answers]
