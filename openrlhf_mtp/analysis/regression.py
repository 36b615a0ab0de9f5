"""A straight line with an honest interval, and a mean with one.

Tokens of one response are not independent measurements: a hard passage lowers many of them together, and the chains
of neighboring anchors share targets. Intervals that treat them as independent are several times too narrow. Here the
unit of sampling is the response: the sandwich estimator adds up scores by cluster before it squares them (CR1 of
Liang and Zeger 1986, with the factor G/(G-1) * (n-1)/(n-2) for G clusters and n points), which also lets the noise
differ from point to point, as it must for a value between 0 and 1. Intervals use Student's t with G - 1 degrees of
freedom.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

FEWEST_POINTS, FEWEST_CLUSTERS = 3, 3


@dataclass(frozen=True)
class Line:
    """y = intercept + slope * x, fitted by least squares.

    Attributes:
        slope, intercept: of the line.
        slope_low, slope_high: 95 % interval of the slope.
        covariance: of (intercept, slope) [2, 2], for the band around the line.
        x_low, x_high: range of x that was fitted; the line says nothing outside it.
        points, clusters: how many points, in how many clusters.
    """

    slope: float
    intercept: float
    slope_low: float
    slope_high: float
    covariance: NDArray[np.float64]
    x_low: float
    x_high: float
    points: int
    clusters: int

    def at(self, x: ArrayLike) -> NDArray[np.float64]:
        """The line's y."""
        return self.intercept + self.slope * np.asarray(x, dtype=np.float64)

    def half_width(self, x: ArrayLike) -> NDArray[np.float64]:
        """Half the width of the line's 95 % interval at x."""
        design = np.stack([np.ones_like(np.asarray(x, dtype=np.float64)), np.asarray(x, dtype=np.float64)])
        variance = np.einsum("i...,ij,j...->...", design, self.covariance, design)
        width: NDArray[np.float64] = t_975(self.clusters - 1) * np.sqrt(np.maximum(variance, 0.0))
        return width


def fit_line(x: ArrayLike, y: ArrayLike, cluster: ArrayLike | None = None) -> Line | None:
    """Fit a line; points that are not finite are left out.

    Args:
        x, y: the points [n].
        cluster: a number for each cluster, equal for points that depend on each other [n]; None if every point is one.

    Returns:
        None if a line cannot be told: fewer than three points or clusters, or x does not vary.
    """
    xs, ys, groups = _finite(x, y, cluster)
    clusters = int(groups.max()) + 1 if len(groups) else 0
    if len(xs) < FEWEST_POINTS or clusters < FEWEST_CLUSTERS or np.ptp(xs) <= 1e-9:
        return None
    design = np.stack([np.ones_like(xs), xs], axis=1)
    bread = np.linalg.inv(design.T @ design)
    intercept, slope = bread @ (design.T @ ys)
    scores = design * (ys - intercept - slope * xs)[:, None]
    summed = np.zeros((clusters, 2))
    np.add.at(summed, groups, scores)
    n = len(xs)
    covariance = bread @ (summed.T @ summed) @ bread * (clusters / (clusters - 1) * (n - 1) / max(n - 2, 1))
    half = t_975(clusters - 1) * math.sqrt(covariance[1, 1])
    return Line(
        slope=float(slope),
        intercept=float(intercept),
        slope_low=float(slope - half),
        slope_high=float(slope + half),
        covariance=covariance,
        x_low=float(xs.min()),
        x_high=float(xs.max()),
        points=n,
        clusters=clusters,
    )


@dataclass(frozen=True)
class Mean:
    """A mean with half the width of its 95 % interval; the width is NaN when it cannot be told."""

    value: float
    half_width: float
    points: int
    clusters: int


def mean_of(values: ArrayLike, cluster: ArrayLike | None = None) -> Mean | None:
    """Mean of the finite values with an interval that counts clusters; None if there is none.

    With one cluster a value, as for seeds, this is the textbook interval t * s / n^1/2.
    """
    ys, _, groups = _finite(values, values, cluster)
    if not len(ys):
        return None
    clusters, mean = int(groups.max()) + 1, float(ys.mean())
    if clusters < 2:
        return Mean(mean, math.nan, len(ys), clusters)
    summed = np.bincount(groups, weights=ys - mean, minlength=clusters)
    variance = float((summed**2).sum()) * clusters / (clusters - 1) / len(ys) ** 2
    return Mean(mean, t_975(clusters - 1) * math.sqrt(variance), len(ys), clusters)


def t_975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t; NaN below one degree of freedom.

    It is `scipy.stats.t.ppf(0.975, freedom)`, without the second that importing `scipy.stats` takes.

    >>> round(t_975(2), 2), round(t_975(30), 2)
    (4.3, 2.04)
    """
    return float(stdtrit(freedom, 0.975)) if freedom >= 1 else math.nan


def _finite(x: ArrayLike, y: ArrayLike, cluster: ArrayLike | None) -> tuple[NDArray[Any], ...]:
    """Finite points in float64, their clusters numbered from 0 without a gap."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    groups = np.arange(len(xs)) if cluster is None else np.asarray(cluster)
    kept = np.isfinite(xs) & np.isfinite(ys)
    return xs[kept], ys[kept], np.unique(groups[kept], return_inverse=True)[1]
