"""Cross-entropy with the sampled token as a hard label: the loss of a language model, and of most published MTP heads.

    L = -log q^j(x_{i+j+1})                              gradient with respect to the logits: q_v - 1[v = x]

FastMTP (arXiv 2509.18362), slime and verl train with it. The soft cross-entropy between distributions, which Bebop
(arXiv 2606.12370) calls CE, has the gradient of `kl`. Both have the optimum q = p, but a row sees one noisy token here,
so this one needs more data. A head that cannot reach p spreads over what it cannot tell apart, in both, and overlap
earns no credit. Counts every depth inside the mask.
"""

from __future__ import annotations

from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput, mean_over_depths


def ce(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of -log q(token), in nats."""
    return mean_over_depths(-inputs.log_q, inputs)
