"""How long a part of the training takes where it really runs.

On a GPU a call returns before its work is done, and whoever waits first would be charged with what others had queued:
there, events on the stream are timed and read at the end. On a CPU a clock is right.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the seconds of the parts that run within `running()`."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what happens within; waits for nothing."""
        if torch.cuda.is_available():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            try:
                yield
            finally:
                end.record()
                self._events.append((start, end))
            return
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - began

    def read(self) -> float:
        """Seconds since the last call; on a GPU this waits for the parts that were timed."""
        seconds, self._seconds = self._seconds, 0.0
        events, self._events = self._events, []
        for start, end in events:
            end.synchronize()
            seconds += start.elapsed_time(end) / 1e3
        return seconds
