"""Forward Kullback-Leibler divergence from the policy to the draft.

    L = KL(p || q^j) = sum_v p_v (log p_v - log q_v)     gradient with respect to the logits: q_v - p_v

The gradient of the soft cross-entropy -sum_v p_v log q_v, which Bebop (arXiv 2606.12370) calls CE. The same optimum as
`ce` without the noise of the sampled token, and a gradient that does not vanish for a cold head at any depth: this is
the warm-up before the TV objectives (Bebop, section 4). It fails
softly: a head that cannot match p spreads over all of it, where acceptance would rather give up a tail. Counts every
depth inside the mask.
"""

from __future__ import annotations

from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput, mean_over_depths


def kl(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of KL(p || q), in nats."""
    return mean_over_depths(inputs.kl, inputs)
