"""The ratio of one form's figure to another's, with its spread over the repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """A ratio and the interval it was seen in.

    Attributes:
        middle: the figure to quote.
        low, high: least and greatest over the repeats.
    """

    middle: float
    low: float
    high: float

    @classmethod
    def of_medians(cls, one: Sequence[float], other: Sequence[float]) -> Ratio:
        """Divide the medians; the interval lies between the extremes of all repeats."""
        return cls(median(one) / median(other), min(one) / max(other), max(one) / min(other))

    @classmethod
    def by_turn(cls, one: Sequence[float], other: Sequence[float]) -> Ratio:
        """Divide turn by turn, so that a slow moment hits both; the median of these ratios, and their extremes."""
        ratios = [mine / theirs for mine, theirs in zip(one, other, strict=True)]
        return cls(median(ratios), min(ratios), max(ratios))

    def interval(self, digits: int = 2) -> str:
        """The interval as tables print it, "0.95-1.04"."""
        return f"{self.low:.{digits}f}-{self.high:.{digits}f}"
