"""A part of the local cluster that looks again and again at what the API server lists."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

EXPECTED = (OSError, TimeoutError)
"""The server is busy, or going down; anything else is told with its traceback."""


class Loop:
    """Calls a function at an interval in a thread of its own; what it raises is kept and the next round comes."""

    def __init__(self, look: Callable[[], None], every_s: float) -> None:
        self.problems: list[str] = []
        self.ending = threading.Event()
        self._look, self._every_s = look, every_s
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Ask for no further round; `join` waits for the one that runs."""
        self.ending.set()

    def join(self) -> None:
        """Wait for the last round."""
        self._thread.join()

    def _run(self) -> None:
        while not self.ending.wait(self._every_s):
            try:
                self._look()
            except EXPECTED as problem:
                self.problems.append(f"{type(problem).__name__}: {problem}")
            except Exception:
                self.problems.append(traceback.format_exc())
