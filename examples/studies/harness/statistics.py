"""Means over seeds with 95 % intervals: Student's t, which is wide for three seeds, as it must be.

The interval covers variation over seeds; it says nothing about other tasks or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_mtp.analysis.regression import mean_of


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval; both are None for a single value, which tells nothing of its spread."""

    mean: float
    low: float | None
    high: float | None


def interval(values: Sequence[float]) -> Interval:
    """The mean of finite values, one a seed, with its interval.

    Raises:
        ValueError: no value.

    >>> found = interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.low, 5), round(found.high, 5)
    (2.0, -0.48417, 4.48417)
    """
    found = mean_of(values)
    if found is None:
        raise ValueError("got no finite value, expected one a seed")
    if found.points == 1:
        return Interval(found.value, None, None)
    return Interval(found.value, found.value - found.half_width, found.value + found.half_width)


def paired(values: Sequence[float], against: Sequence[float], *, ratio: bool = False) -> Interval:
    """The same of the differences (or the ratios), pair by pair: what the seeds have in common cancels."""
    pairs = zip(values, against, strict=True)
    return interval([a / b if ratio else a - b for a, b in pairs])
