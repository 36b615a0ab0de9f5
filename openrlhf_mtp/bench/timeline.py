"""One whole rollout, step by step, and its figures. Pure: no engine here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SMALL_BATCH = 4
"""Live responses up to which a rollout is in its tail."""


@dataclass(frozen=True)
class Emission:
    """The tokens that one request got from a step.

    Attributes:
        request: its number.
        tokens: new tokens.
        after_end: it had an end token before, which its forced length made it ignore.
    """

    request: int
    tokens: int
    after_end: bool = False


@dataclass(frozen=True)
class Step:
    """One step of an engine: seconds from the rollout's start to its end, and who got tokens."""

    end: float
    emitted: tuple[Emission, ...]


@dataclass(frozen=True)
class Timeline:
    """One whole rollout.

    Attributes:
        steps: in order.
        lengths: tokens of each response.
        drafted, accepted: tokens over all drafts, as the engine counts them; beyond a response's end too.
    """

    steps: Sequence[Step]
    lengths: Sequence[int]
    drafted: int = 0
    accepted: int = 0

    @property
    def seconds(self) -> float:
        """The time from the first request to the last response's end."""
        return self.steps[-1].end

    @property
    def tokens(self) -> int:
        """Count the emitted tokens of all responses."""
        return sum(self.lengths)

    def completions(self) -> list[float]:
        """Seconds after which each response was complete, by request."""
        last = [0.0] * len(self.lengths)
        for step in self.steps:
            for each in step.emitted:
                last[each.request] = step.end
        return last

    def loads(self) -> Iterator[tuple[float, int]]:
        """Each step's seconds, and how many responses were incomplete when it began."""
        ends = sorted(self.completions())
        begun, complete = 0.0, 0
        for step in self.steps:
            while ends[complete] <= begun:
                complete += 1
            yield step.end - begun, len(ends) - complete
            begun = step.end

    def share_of_time(self, most: int = SMALL_BATCH) -> float:
        """Share of the seconds in which at most so many responses were incomplete."""
        return sum(seconds for seconds, live in self.loads() if live <= most) / self.seconds

    def tokens_per_forward(self, *, after_end: bool | None = None) -> float | None:
        """Tokens that a response gets from one target forward, the first of each response left out.

        It counts emitted tokens, so it lies a little below an engine's acceptance length, whose last draft of each
        response may be accepted beyond the limit. Forwards that nothing was drafted for count too.

        Args:
            after_end: of the text before (false) or after a first end token; None takes both.

        Returns:
            None where there is no such forward.
        """
        seen: set[int] = set()
        tokens = forwards = 0
        for step in self.steps:
            for each in step.emitted:
                if each.request in seen and after_end in (None, each.after_end):
                    tokens, forwards = tokens + each.tokens, forwards + 1
                seen.add(each.request)
        return tokens / forwards if forwards else None

    def share_after_end(self) -> float:
        """Share of the tokens that follow a first end token of their response."""
        return (
            sum(each.tokens for step in self.steps for each in step.emitted if each.after_end) / self.tokens
        )


FIGURES = {
    "seconds": "of the whole rollout, s",
    "seconds_per_token": "s for each emitted token, over all responses",
    "completion_p50": "median seconds to a response's end",
    "completion_p95": "95 % of the responses end sooner, s",
    "completion_max": "s; the whole rollout, but for the last step's rest",
    "tail_share": f"share of the time with at most {SMALL_BATCH} responses incomplete",
    "tail_seconds": f"s with at most {SMALL_BATCH} responses incomplete",
    "tokens_per_forward": "emitted tokens for each target forward of a response, its first left out",
    "tokens_per_forward_before_end": "the same before a response's first end token",
    "tokens_per_forward_after_end": "the same after it",
    "share_after_end": "share of the tokens after a response's first end token",
    "acceptance_rate": "accepted over drafted tokens",
}
"""Name -> meaning and unit of what `figures` gives; a figure without a value is left out."""


def figures(timeline: Timeline) -> dict[str, float]:
    """A rollout in numbers, by the names of `FIGURES`."""
    completions = timeline.completions()
    p50, p95 = (float(np.quantile(completions, share)) for share in (0.5, 0.95))
    tail = timeline.share_of_time()
    found = {
        "seconds": timeline.seconds,
        "seconds_per_token": timeline.seconds / timeline.tokens,
        "completion_p50": p50,
        "completion_p95": p95,
        "completion_max": max(completions),
        "tail_share": tail,
        "tail_seconds": tail * timeline.seconds,
        "tokens_per_forward": timeline.tokens_per_forward(),
        "tokens_per_forward_before_end": timeline.tokens_per_forward(after_end=False),
        "tokens_per_forward_after_end": timeline.tokens_per_forward(after_end=True),
        "share_after_end": timeline.share_after_end(),
        "acceptance_rate": timeline.accepted / timeline.drafted if timeline.drafted else None,
    }
    return {name: value for name, value in found.items() if value is not None}
