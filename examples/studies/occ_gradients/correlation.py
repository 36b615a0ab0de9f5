"""How well a proxy follows the true ratio over checkpoints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

PERMUTATIONS = 10_000
FEWEST = 4
"""Checkpoints: with three, Fisher's interval has no width."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation.

    Attributes:
        value: of all points; not a number with fewer than four, or where one side does not vary.
        low, high: ends of Fisher's 95 % interval.
        p: two-sided, by permutation of the points.
        points: how many.
    """

    value: float
    low: float
    high: float
    p: float
    points: int


def spearman(left: Sequence[float], right: Sequence[float]) -> Correlation:
    """The correlation of pairs; those that are not finite are left out.

    >>> round(spearman([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).value, 3)
    0.9
    """
    pairs = np.array([pair for pair in zip(left, right, strict=True) if all(map(math.isfinite, pair))])
    if len(pairs) < FEWEST or np.ptp(pairs, axis=0).min() == 0.0:
        return Correlation(math.nan, math.nan, math.nan, math.nan, len(pairs))
    x, y = (_standard(rankdata(column)) for column in pairs.T)
    value = float(x @ y)
    rng = np.random.default_rng(0)
    permuted = rng.permuted(np.tile(y, (PERMUTATIONS, 1)), axis=1) @ x
    at_least = int((np.abs(permuted) >= abs(value) - 1e-12).sum())
    half = 1.96 * math.sqrt(1.06 / (len(pairs) - 3))
    center = math.atanh(max(-1.0 + 1e-9, min(1.0 - 1e-9, value)))
    low, high = (math.tanh(center + side * half) for side in (-1.0, 1.0))
    return Correlation(value, low, high, (at_least + 1) / (PERMUTATIONS + 1), len(pairs))


def _standard(ranks: np.ndarray) -> np.ndarray:
    centered = ranks - ranks.mean()
    return np.asarray(centered / np.linalg.norm(centered))


def same_sign(left: Sequence[float], right: Sequence[float]) -> float:
    """The share of pairs with equal signs; one with a 0 or without a number has none.

    >>> same_sign([1.0, -1.0, 0.0, 2.0], [2.0, 3.0, 1.0, 0.5])
    0.5
    """
    return float(np.mean([a * b > 0.0 for a, b in zip(left, right, strict=True)]))


def without_stage(values: Sequence[float], stages: Sequence[int]) -> list[float]:
    """Each value minus the mean of its stage: what is left when a common trend along runs is taken out."""
    by_stage: dict[int, list[float]] = {}
    for value, stage in zip(values, stages, strict=True):
        if math.isfinite(value):
            by_stage.setdefault(stage, []).append(value)
    means = {stage: sum(own) / len(own) for stage, own in by_stage.items()}
    return [value - means.get(stage, math.nan) for value, stage in zip(values, stages, strict=True)]
