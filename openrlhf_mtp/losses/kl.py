"""Forward Kullback-Leibler divergence from the policy to the draft.

    L = KL(p || q^j) = sum_v p_v (log p_v - log q_v)

The same optimum as cross-entropy without the noise of the sampled token, and a gradient (q_v - p_v) that does not
vanish for a cold head at any depth: this is the warm-up before the TV objectives (Bebop, arXiv 2606.12370, section 4).
Counts every depth inside the mask.
"""

from __future__ import annotations

from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput, mean_over_depths


def kl(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of KL(p || q), in nats."""
    log_q = inputs.draft_logits.log_softmax(-1)
    log_p = inputs.target_logits.log_softmax(-1)
    losses = (log_p.exp() * (log_p - log_q)).sum(-1)
    return mean_over_depths(losses, inputs.mask)
