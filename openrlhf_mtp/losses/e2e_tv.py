"""End-to-end total variation: minus the expected number of accepted drafts, scaled to [0, 1].

    L = 1 - (1/k) sum_j prod_{i<=j} alpha_i        (Bebop, arXiv 2606.12370, section 4)

Depth d's overlap enters with weight

    dL/d alpha_d = -(1/k) (prod_{i<d} alpha_i) (1 + alpha_{d+1} (1 + alpha_{d+2} (...)))      prefix x suffix

which is never a division by alpha_d, and its logits get that weight times the gradient in `tv`. Depths after an
unlikely one hardly matter, as in the engine, so it fails on a cold head, which needs a KL warm-up. The sum is over the
fixed horizon: anchors with all k depths inside. The loss by depth is 1 - prod_{i<=j} alpha_i.
"""

from __future__ import annotations

from openrlhf_mtp.losses.acceptance import expected_accepted, reach
from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput


def e2e_tv(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over anchors of the fixed horizon of 1 - E / k."""
    weight = inputs.anchor_weight * inputs.mask[:, -1]
    losses = 1.0 - expected_accepted(inputs.alpha) / inputs.alpha.shape[-1]
    missed = (1.0 - reach(inputs.alpha.detach())).masked_fill(~inputs.mask, 0.0)
    return ObjectiveOutput(
        loss_sum=(losses * weight).sum(),
        loss_count=weight.sum(),
        depth_loss_sum=missed.sum(0),
    )
