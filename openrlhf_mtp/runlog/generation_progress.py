"""How far a generation is, by what the engines count.

Requests of one batch end late and together, so finished ones say little for most of the time. Engines count every
token as they sample it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from openrlhf_mtp.runlog.time_left import in_words

LOOK_EVERY_S = 5.0
"""Seconds between two looks at the counters. One look is a remote call that reads a table of numbers."""

_WINDOW_S = 60.0
"""The rate is that of the last minute: it falls as requests end."""

_ENOUGH = 8
"""Responses that must have ended before their number says how long one is."""


class GenerationProgress:
    """Responses that ended, tokens for each second, and the time left.

    Args:
        unit: what ends; "requests" where an agent makes several for a response, so that nobody knows how many come.
        clock: seconds, monotonic.
    """

    def __init__(self, unit: str = "responses", clock: Callable[[], float] = time.monotonic) -> None:
        self.unit, self._clock = unit, clock
        self._started = clock()
        self.expected = self._limit = 0
        self.ended = self.tokens = 0
        self._seen: deque[tuple[float, int]] = deque()

    def expect(self, responses: int, limit: int) -> None:
        """So many more responses come, with `limit` tokens together at most."""
        self.expected += responses
        self._limit += limit

    def see(self, tokens: int, ended: int) -> None:
        """Take note of the tokens sampled and the responses that ended since the beginning."""
        now = self._clock()
        self.tokens = tokens
        self.ended = min(ended, self.expected) if self.expected else ended
        if not tokens:
            return  # the engines still start
        self._seen.append((now, self.tokens))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW_S:
            self._seen.popleft()

    def rate(self) -> float:
        """Tokens for each second, over the last minute; 0 before two looks saw tokens."""
        if len(self._seen) < 2:
            return 0.0
        (first, before), (last, now) = self._seen[0], self._seen[-1]
        return (now - before) / max(last - first, 1e-9)

    def tokens_left(self) -> tuple[float, bool] | None:
        """Tokens still to come, and whether that is an estimate (else a bound); None if nobody knows how many come.

        The estimate takes the length of a response to be all tokens so far over the responses that ended: the mean
        of exponential lengths of which the longer ones are not observed to their end.
        """
        if not self.expected:
            return None
        running = self.expected - self.ended
        bound = min(self._limit - self.tokens, running * self._limit / self.expected)
        if self.ended < _ENOUGH:
            return max(bound, 0.0), False
        return max(min(bound, running * self.tokens / self.ended), 0.0), True

    def __str__(self) -> str:
        of = f"/{self.expected}" if self.expected else ""
        text = f"{self.ended}{of} {self.unit}"
        if not self.tokens:
            return f"{text}, no token after {self._clock() - self._started:.0f} s"
        text += f", {self.tokens} tokens"
        rate, left = self.rate(), self.tokens_left()
        if not rate:
            return text
        text += f" at {rate:.3g} a second"
        if left is None:
            return text
        tokens, is_estimate = left
        return f"{text}, {'about' if is_estimate else 'at most'} {in_words(tokens / rate)} left at this rate"
