"""Tokens of acceptance length per nat of entropy, from a temperature sweep of one policy and head."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from openrlhf_mtp.runlog.temperature_sweep import TemperaturePoint

LEAST_ENTROPY_RANGE = 1e-3
"""Nat. If the sweep moved entropy by less, its effect cannot be told from noise."""

NO_SWEEP = (
    "b is unknown: the head came without a temperature sweep; `openrlhf-mtp pretrain` measures one at its end "
    "(mtp.pretrain.temperature_sweep)"
)


@dataclass(frozen=True)
class Slope:
    """The line through the points of a sweep.

    Attributes:
        value: b, tokens of length per nat.
        half_width: half of b's 95 % interval, from the standard errors of the lengths.
        entropy, length: a point on the line: the means of the points.
        bend: the largest distance of a point from the line, tokens. Large against `half_width` times the range of
            entropy, it says that length is no straight line in entropy.
    """

    value: float
    half_width: float
    entropy: float
    length: float
    bend: float


def slope_of(points: Sequence[TemperaturePoint]) -> tuple[Slope | None, str]:
    """The least-squares slope of length over entropy, or why there is none, as a sentence."""
    if len(points) < 2:
        return None, NO_SWEEP
    entropy, length, error = (
        np.array([vars(point)[name] for point in points]) for name in ("entropy", "length", "length_error")
    )
    moved = float(np.ptp(entropy))
    if moved < LEAST_ENTROPY_RANGE:
        return None, f"b is undefined: the sweep moved entropy by {moved:.1e} nat, which is too little"
    centered = entropy - entropy.mean()
    weight = centered / (centered @ centered)
    b = float(weight @ length)
    half = float(ndtri(0.975)) * math.sqrt(float((weight * error) @ (weight * error)))
    distance = length - length.mean() - b * centered
    return Slope(b, half, float(entropy.mean()), float(length.mean()), float(np.abs(distance).max())), ""


def mean_slope(slopes: Sequence[Slope]) -> Slope:
    """Average the slopes of several runs' sweeps."""
    values = {name: float(np.mean([vars(each)[name] for each in slopes])) for name in vars(slopes[0])}
    values["half_width"] = math.sqrt(math.fsum(each.half_width**2 for each in slopes)) / len(slopes)
    return Slope(**values)
