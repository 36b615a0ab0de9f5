"""A run's activity within a step, for the line of progress: one hidden file in its folder for each.

The process that does the work says how far it is. The driver reads it (`cli.progress.run_line`); nothing else does, so
a file that cannot be written, or that a killed process left behind, harms nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openrlhf_mtp.config.atomic_files import atomic_path

SAY_EVERY_S = 2.0
"""Seconds between two texts, and before the first: a short activity writes nothing."""

_PREFIX = ".activity-"


class Activity:
    """One activity of a run, which one process at a time may be at.

    Args:
        out: the run folder.
        name: of the file; it orders activities that go on at the same time.
        clock: seconds, monotonic.
    """

    def __init__(self, out: Path, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = out / f"{_PREFIX}{name}", clock
        self._said = clock()
        self._is_said = self._is_over = False
        self._lock = threading.Lock()  # the thread that says may be another than the one that ends

    def say(self, text: object) -> None:
        """Show `str(text)` from now on; nothing happens if the last text is not old enough."""
        if self._clock() - self._said >= SAY_EVERY_S:
            self._write(text)

    def _write(self, text: object) -> None:
        self._said = self._clock()
        with self._lock, suppress(OSError):
            if not self._is_over:
                with atomic_path(self._path) as partial:
                    partial.write_text(str(text), encoding="utf-8")
                self._is_said = True

    def end(self) -> None:
        """The activity is over."""
        with self._lock, suppress(OSError):
            self._is_over = True
            if self._is_said:  # otherwise it is another rank's
                self._path.unlink(missing_ok=True)

    def begin(self, text: object) -> None:
        """Show `str(text)` at once, for work that does not say how far it is."""
        self._write(text)


@contextmanager
def activity(out: Path, name: str) -> Iterator[Activity]:
    """An activity that ends with the context."""
    one = Activity(out, name)
    try:
        yield one
    finally:
        one.end()


def read_activities(out: Path) -> str:
    """All that goes on now, in one text; empty when nobody says anything."""
    texts = []
    for path in sorted(out.glob(f"{_PREFIX}*")):
        with suppress(OSError, UnicodeDecodeError):
            texts.append(path.read_text(encoding="utf-8"))
    return " · ".join(texts)


def forget_activities(out: Path) -> None:
    """Remove what an earlier run's processes left behind."""
    for path in out.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            path.unlink()
