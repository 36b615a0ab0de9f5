"""A count of work done, with an estimate of the rest."""

from __future__ import annotations

import time
from collections.abc import Callable

from openrlhf_mtp.runlog.time_left import in_words


class Count:
    """A counter of work done out of `total`; shared with the thread that shows it."""

    def __init__(self, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.unit = total, unit
        self.done = 0
        self._clock, self._started = clock, clock()

    def advance(self, by: int = 1) -> None:
        """So much more is done."""
        self.done += by

    @property
    def detail(self) -> str:
        """A remark beside the two numbers, where a line has those alone."""
        return ""

    @property
    def has_begun(self) -> bool:
        """Whether something is done, of the first one perhaps a part."""
        return self.done > 0

    def __str__(self) -> str:
        seconds = self._clock() - self._started
        text = f"{self.done}/{self.total} {self.unit}"
        if not self.done:
            return f"{text}, none yet after {seconds:.0f} s"
        left = seconds / self.done * (self.total - self.done)
        return f"{text}, {self.done / seconds:.3g} a second, about {in_words(left)} left"
