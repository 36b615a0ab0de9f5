"""KL where the draft is poor, total variation where it is good, row by row.

    L = lambda KL(p || q^j) + (1 - lambda) TV(p, q^j),    lambda = exp(-eta alpha_j) held constant, eta = 3

A schedule that needs no steps: lambda is 1 for a disjoint draft and 0.05 for a perfect one (LK losses, arXiv
2602.23881, with their eta). Gradient: lambda (q_v - p_v) + (1 - lambda) x the gradient of `tv`. It fails to let go of
KL entirely: at alpha = 0.8 a tenth of the weight is still on it. Counts every depth inside the mask.
"""

from __future__ import annotations

from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput, mean_over_depths

ETA = 3.0


def lk_hybrid(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of the mixture."""
    share = (-ETA * inputs.alpha.detach()).exp()
    return mean_over_depths(share * inputs.kl + (1.0 - share) * (1.0 - inputs.alpha), inputs)
