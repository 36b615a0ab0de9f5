"""Negative log acceptance at each depth.

    L = -log alpha_j,    alpha_j = sum_v min(p_v, q_v)   gradient: (1 / alpha_j) x the gradient of `tv`

The factor 1 / alpha cancels what makes TV slow on a cold head: the TV gradient is at most 2 alpha in sum, this one at
most 2 (LK losses, arXiv 2602.23881). The sum over depths is minus the log of the probability that the whole draft is
accepted. It fails where a position cannot be learned: it keeps pulling there as hard as anywhere, while TV lets go.
Counts every depth inside the mask.
"""

from __future__ import annotations

from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput, mean_over_depths

LEAST_ALPHA = 1e-12
"""Overlap below this is 0 to float32; its gradient is nothing but rounding, so it gives none."""


def nla(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of -log alpha, in nats."""
    return mean_over_depths(-inputs.alpha.clamp(min=LEAST_ALPHA).log(), inputs)
