"""Means over seeds with bootstrap intervals.

With n seeds there are n^n resamples (27 for three), so all of them are taken: nothing is drawn at random. Three seeds
make a coarse interval, close to the range of the values, and it says nothing about tasks or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

LEVEL = 0.95
MOST_SEEDS = 7
"""Of which all resamples are taken: 7^7 are 823,543."""


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float]) -> Interval:
    """Percentile bootstrap of the mean over every resample of the values.

    Raises:
        ValueError: no value, or more than `MOST_SEEDS`.

    >>> bootstrap([1.0, 2.0, 3.0])
    Interval(mean=2.0, low=1.0, high=3.0)
    """
    if not 1 <= len(values) <= MOST_SEEDS:
        raise ValueError(f"got {len(values)} values, expected 1 to {MOST_SEEDS}")
    means = sorted(fmean(drawn) for drawn in product(values, repeat=len(values)))
    tail = (1.0 - LEVEL) / 2.0
    return Interval(fmean(values), means[int(tail * len(means))], means[-1 - int(tail * len(means))])


def paired(values: Sequence[float], against: Sequence[float], *, ratio: bool = False) -> Interval:
    """The same of the differences (or the ratios), pair by pair: what the seeds have in common cancels."""
    pairs = zip(values, against, strict=True)
    return bootstrap([a / b if ratio else a - b for a, b in pairs])
