"""Total variation at each depth: the rejection probability itself.

    L = TV(p, q^j) = 1 - alpha_j,    alpha_j = sum_v min(p_v, q_v)

Gradient with respect to the logits: q_v (S - 1[q_v <= p_v]), S = sum_v q_v 1[q_v <= p_v] (Bebop, arXiv 2606.12370,
section 4); a tie counts as accepted. Bounded by q_v, so it fails on a cold head: what puts almost nothing on the
right tokens learns slowly, hence the KL warm-up. Counts every depth inside the mask.
"""

from __future__ import annotations

from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput, mean_over_depths


def tv(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of 1 - alpha."""
    return mean_over_depths(1.0 - inputs.alpha, inputs)
