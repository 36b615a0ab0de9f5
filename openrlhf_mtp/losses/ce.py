"""Cross-entropy with the sampled token: the loss of a language model, and of most published MTP heads.

    L = -log q^j(x_{i+j+1})                              gradient with respect to the logits: q_v - 1[v = x]

Its optimum is q = p, but on the way it spends probability where the sampled token is, so acceptance falls linearly
with the policy's entropy (Bebop, arXiv 2606.12370, section 3). It fails where the policy is uncertain and the head is
small: the noise of one token a position, and no credit for overlap. Counts every depth inside the mask.
"""

from __future__ import annotations

from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput, mean_over_depths


def ce(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of -log q(token), in nats."""
    return mean_over_depths(-inputs.log_q, inputs)
