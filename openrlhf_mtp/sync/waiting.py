"""Waiting that always ends: deadlines, polling, and library calls that know no deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

ROUND_LIMIT = "mtp.sync.timeout_s"

POLL_S = (0.0005, 0.02)  # first and longest pause between two looks at a running operation


class Deadline:
    """A point in time; `remaining()` never goes below zero. `setting` names what moves it, for messages."""

    def __init__(self, seconds: float, setting: str = "") -> None:
        self.seconds, self.setting = seconds, setting
        self._end = time.monotonic() + seconds

    def __str__(self) -> str:
        return f"{self.seconds:g} s" + (f" ({self.setting} sets how long)" if self.setting else "")

    def remaining(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def passed(self) -> bool:
        return self.remaining() == 0.0


def no_watch() -> None:
    """Nothing else to look at while waiting."""


def poll(done: Callable[[], bool], deadline: Deadline, watch: Callable[[], None] = no_watch) -> bool:
    """Look until `done()` (True) or the deadline (False). `watch` may raise to end the wait at once."""
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
        return not self._thread.is_alive()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value
