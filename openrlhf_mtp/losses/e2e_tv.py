"""End-to-end total variation: minus the expected number of accepted drafts, scaled to [0, 1].

    L = 1 - (1/n) sum_{j<=n} prod_{i<=j} alpha_i        (Bebop, arXiv 2606.12370, section 4, where n = k)

n of the k depths are inside the response. The engine earns nothing beyond its end, so there the sum just stops. Depth
d's overlap enters with weight

    dL/d alpha_d = -(1/n) (prod_{i<d} alpha_i) (1 + alpha_{d+1} (1 + alpha_{d+2} (...)))      prefix x suffix

which is never a division by alpha_d, and its logits get that weight times the gradient in `tv`. Depths after an
unlikely one hardly matter, as in the engine, so it fails on a cold head, which needs a KL warm-up. Counts every depth
inside the mask. The loss by depth is 1 - prod_{i<=j} alpha_i.
"""

from __future__ import annotations

from openrlhf_mtp.losses.acceptance import expected_accepted, reach
from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput


def e2e_tv(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of 1 - E / n, the drafts that an engine would lose."""
    alpha = inputs.alpha.masked_fill(~inputs.mask, 0.0)
    inside = inputs.mask.sum(-1)
    weight = inputs.anchor_weight / alpha.shape[-1]
    missed = (1.0 - reach(alpha.detach())).masked_fill(~inputs.mask, 0.0)
    return ObjectiveOutput(
        loss_sum=((inside - expected_accepted(alpha)) * weight).sum(),
        loss_count=(inside * weight).sum(),
        depth_loss_sum=missed.sum(0),
    )
