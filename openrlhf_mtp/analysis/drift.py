"""Why acceptance changed over a run: the policy's entropy, or a head that no longer fits (Bebop, arXiv 2606.12370).

    alpha_t - alpha_0 = b (H_t - H_0) + residual_t

RL lowers or raises the policy's entropy, and acceptance follows it without any fault of the head: that is the first
term. What is left is mismatch: below zero, the head lags behind the policy; above, it has learnt. The slope b is fitted
on the early phase, while the head still fits; alpha_0 and H_0 are the early phase's means, because one step is noise
(so the residual of the early phase is zero on average).

Steps follow each other with overlapping causes, so the interval of b treats the whole early phase as a few blocks of
neighboring steps (`regression.fit_line` with clusters), not as independent points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from openrlhf_mtp.analysis.regression import Line, fit_line

EARLY_SHARE, EARLY_FEWEST = 0.2, 10
"""The early phase: a fifth of the run's steps, ten at least."""
BLOCKS = 5
LEAST_ENTROPY_RANGE = 1e-3
"""Nat. If entropy varied less in the early phase, its effect cannot be told from noise."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """The split of a run's change of acceptance; arrays over the run's steps [n].

    Attributes:
        steps: the steps.
        change: alpha_t - alpha_0.
        by_entropy: b (H_t - H_0); None if b is undefined.
        mismatch: the residual; None if b is undefined.
        slope: b with its interval; None if it cannot be told, for the reason in `why_not`.
        why_not: why there is no split, as a sentence; empty if there is one.
        early: number of steps in the early phase, the first of the run.
    """

    steps: Array
    change: Array
    by_entropy: Array | None
    mismatch: Array | None
    slope: Line | None
    why_not: str
    early: int

    def at_the_end(self, values: Array | None) -> float:
        """Mean of a part over the last steps, as many as the early phase has or as follow it; NaN without a split."""
        last = min(self.early, len(self.steps) - self.early)
        return math.nan if values is None else float(values[-last:].mean())


def early_steps(count: int) -> int:
    """How many of a run's steps are its early phase."""
    return max(EARLY_FEWEST, round(EARLY_SHARE * count))


def split_drift(
    steps: Sequence[float], entropy: ArrayLike, acceptance: ArrayLike, early: int | None = None
) -> Drift | None:
    """Split the change of acceptance over a run; steps with a value that is not finite are left out.

    Args:
        steps: [n].
        entropy: mean entropy of the policy at each step, nat [n].
        acceptance: mean acceptance of one depth at each step [n].
        early: steps of the early phase; by default a fifth of the run and at least ten.

    Returns:
        None if the run is no longer than its early phase, so that there is no drift to speak of.
    """
    table: NDArray[Any] = np.array([steps, entropy, acceptance], dtype=np.float64)
    at, h, alpha = table[:, np.isfinite(table).all(axis=0)]
    early = early_steps(len(at)) if early is None else early
    if len(at) <= early:
        return None
    change = alpha - alpha[:early].mean()
    line, why_not = _early_slope(h[:early], alpha[:early])
    if line is None:
        return Drift(at, change, None, None, None, why_not, early)
    by_entropy = line.slope * (h - h[:early].mean())
    return Drift(at, change, by_entropy, change - by_entropy, line, "", early)


def _early_slope(entropy: Array, acceptance: Array) -> tuple[Line | None, str]:
    spread = float(np.ptp(entropy))
    if spread < LEAST_ENTROPY_RANGE:
        return None, (
            f"b is undefined: entropy varied by {spread:.1e} nat in the first {len(entropy)} steps, which is too "
            "little to tell its effect"
        )
    blocks = np.arange(len(entropy)) * min(BLOCKS, len(entropy)) // len(entropy)
    line = fit_line(entropy, acceptance, blocks)
    if line is None:
        return None, f"b is undefined: {len(entropy)} early steps are too few for a line"
    return line, ""
