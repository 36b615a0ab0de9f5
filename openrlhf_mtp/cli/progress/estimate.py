"""An estimate of the time left for work in several stages, on a machine whose speed is not known beforehand.

A stage is a list of parts, each with the seconds it took on one machine. They say how the time is shared out; what
this machine makes of them is measured: finished parts and the current one give its pace. A part that counts its steps
says itself how far it is, and then its own rate decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part of a stage.

    Attributes:
        name: what the user reads, and how the part is entered.
        usual_s: seconds on the machine that the shares were measured on.
    """

    name: str
    usual_s: float


PRIOR_S = 30.0
"""So many usual seconds at a pace of 1 come before the first measured one: a part of two seconds tells little."""


class Estimate:
    """The current position in the work, and the work left.

    Args:
        parts: all of them, in order; those that are left out again (a stage that is done already) by `skip`.
        clock: seconds, monotonic.
    """

    def __init__(self, parts: Sequence[Part], clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = list(parts)
        self._clock = clock
        self._started = self._entered = clock()
        self._at = 0
        self._done = self._first = self._total = 0
        self._first_at = 0.0
        self._took_s = self._usual_s = PRIOR_S

    @property
    def part(self) -> Part | None:
        """The current part; None at the end."""
        return self._parts[self._at] if self._at < len(self._parts) else None

    def skip(self, parts: int) -> None:
        """The next parts are not needed."""
        del self._parts[self._at : self._at + parts]

    def move(self, parts: int) -> None:
        """So many parts are finished, the current one first; below 0, so many are to be done again."""
        now = self._clock()
        if parts > 0:
            self._took_s += now - self._entered
            self._usual_s += sum(part.usual_s for part in self._parts[self._at : self._at + parts])
        self._entered = now
        self._done = self._first = self._total = 0
        self._at += parts

    def count(self, done: int, total: int) -> None:
        """Set the progress of the current part."""
        if not self._total:
            self._first, self._first_at = done, self._clock()
        self._done, self._total = done, total

    def left_s(self) -> float:
        """Seconds until the last part ends, not below 0."""
        if self.part is None:
            return 0.0
        pace, now = self._pace(), self._clock()
        if self._done > self._first:
            current = (now - self._first_at) / (self._done - self._first) * (self._total - self._done)
        else:
            current = self.part.usual_s * pace - (now - self._entered)
        return max(0.0, current) + pace * sum(part.usual_s for part in self._parts[self._at + 1 :])

    def total_s(self) -> float:
        """Seconds from the first to the last part."""
        return self._clock() - self._started + self.left_s()

    def __str__(self) -> str:
        left, total = self.left_s(), self.total_s()
        minutes = max(1, round(total / 60))
        if left < 45:
            return f"under a minute left of {minutes}"
        return f"about {min(minutes, round(left / 60) or 1)} min left of {minutes}"

    def _pace(self) -> float:
        """Seconds here for a usual second; it rises as soon as the current part runs over."""
        assert self.part is not None
        spent = self._clock() - self._entered
        share = self._done / self._total if self._done > self._first else 1.0
        with_current = (self._took_s + spent) / (self._usual_s + self.part.usual_s * share)
        return max(with_current, 0.0 if share < 1.0 else self._took_s / self._usual_s)
