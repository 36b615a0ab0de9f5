"""Means over seeds with 95 % intervals, and what two arms' pairs of seeds can tell.

Everything is Student's t, which is wide for three seeds, as it must be. The intervals cover variation over seeds; they
say nothing about other tasks or models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtrinc, stdtr

from openrlhf_mtp.analysis.regression import mean_of, t_975

POWER = 0.8
"""The share of repeats in which a study has to see an effect before we say that it could have seen it."""


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
    return interval(_pairs(values, against, ratio=ratio))


@dataclass(frozen=True)
class Comparison(Interval):
    """A paired difference (or ratio) with its tests; the tests are None for a single pair.

    Attributes:
        p: of the two-sided t-test that the difference is 0 (the ratio 1).
        detectable: the smallest true difference that as many pairs with this spread show in four of five repeats, at
            5 %, two-sided: a study that finds nothing says nothing about effects below it.
        p_equivalent: of two one-sided t-tests that the difference is at least `least` in size. Below 0.05, the
            difference is too small to matter. None without a `least`.
    """

    p: float | None
    detectable: float | None
    p_equivalent: float | None


def compared(
    values: Sequence[float], against: Sequence[float], *, ratio: bool = False, least: float | None = None
) -> Comparison:
    """Two arms compared seed by seed.

    Args:
        values: of the one arm, a value a seed.
        against: of the other arm, seeds in the same order.
        ratio: compare by quotient instead of by difference.
        least: the smallest effect that would matter, in the unit of the values (of the ratio); positive.

    >>> found = compared([1.0, 2.0, 4.0], [0.0, 0.0, 0.0], least=10.0)
    >>> round(found.p, 3), round(found.p_equivalent, 3), round(found.detectable, 2)
    (0.118, 0.007, 4.86)
    """
    pairs = _pairs(values, against, ratio=ratio)
    found = interval(pairs)
    freedom = len(pairs) - 1
    if freedom < 1:
        return Comparison(found.mean, None, None, None, None, None)
    error = float(np.std(pairs, ddof=1)) / math.sqrt(len(pairs))
    effect = found.mean - (1.0 if ratio else 0.0)
    return Comparison(
        found.mean,
        found.low,
        found.high,
        p=2.0 * _at_least(abs(effect), error, freedom),
        detectable=float(nctdtrinc(freedom, 1.0 - POWER, t_975(freedom))) * error,
        p_equivalent=None if least is None else _at_least(least - abs(effect), error, freedom),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given: compare with 0.05 to be wrong anywhere in the family in 5 %.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _pairs(values: Sequence[float], against: Sequence[float], *, ratio: bool) -> list[float]:
    pairs = zip(values, against, strict=True)
    return [a / b if ratio else a - b for a, b in pairs]


def _at_least(effect: float, error: float, freedom: int) -> float:
    """The chance of a mean at least this large if the truth is 0, given the mean's standard error."""
    if error == 0.0:
        return 0.5 if effect == 0.0 else float(effect < 0.0)
    return float(stdtr(freedom, -effect / error))
