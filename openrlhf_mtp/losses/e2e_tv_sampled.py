"""End-to-end total variation along the sampled text: an unbiased form of minus the engine's accepted drafts.

    L = 1 - V_1 / n,    V_j = alpha_j + r_j V_{j+1} + c_j (alpha_j - r_j),    V_{n+1} = 0

n of the k depths are inside the response, and r_j = min(1, q(x_j) / p(x_j)) is the chance that the text's token x_j was
drafted and accepted. `e2e_tv` has alpha_j in the place of r_j, as if depths were independent. But x_j decides how well
depth j + 1 drafts, and the engine drafts there only after it accepted x_j.

Unbiased: the text comes from the policy, whatever the head. So for every head the mean of V_1 over texts is the
expected number of accepted drafts, J = sum_j E[(prod_{i<j} r_i) alpha_j] (`acceptance.expected_accepted_on_text`), and
the mean of its gradient is the gradient of J. That includes the gradient through r_j, by which x_j is drafted more
often where later depths draft well after it. Without it (the prefix held constant) depth 1 would be trained for its own
overlap alone, as in `tv`. (After the first update on a rollout, p is no longer the policy that wrote the text, and all
this holds as nearly as the two are equal.)

c_j = alpha_j + ... + alpha_j^(k-j) is what V_{j+1} would be if later depths were like depth j. It does not depend on
x_j, and given what is before x_j the mean of r_j is alpha_j. So it changes no mean, and it brings the noise of the
gradient down to that of `e2e_tv`.

    dL/d alpha_j = -R_j (1 + c_j + c_j' (alpha_j - r_j)) / n,    dL/d log q(x_j) = -R_j r_j (V_{j+1} - c_j) / n

with R_j = prod_{i<j} r_i, and the second one 0 where q(x_j) > p(x_j). Like `e2e_tv` it fails on a cold head, which
needs a KL warm-up. Counts every depth inside the mask. The loss by depth is 1 - R_j alpha_j.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openrlhf_mtp.losses.acceptance import acceptance_ratio
from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput


def e2e_tv_sampled(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of 1 - V_1 / n, the drafts along the text that an engine would lose."""
    depths = inputs.alpha.shape[-1]
    ratio = acceptance_ratio(inputs.log_q, inputs.log_p).masked_fill(~inputs.mask, 0.0)
    accepted = torch.zeros_like(inputs.alpha[:, 0])
    for j in reversed(range(depths)):
        alpha = inputs.alpha[:, j]
        expected = _geometric(alpha, depths - 1 - j)
        accepted = alpha + ratio[:, j] * accepted + expected * (alpha - ratio[:, j])
        accepted = accepted.masked_fill(~inputs.mask[:, j], 0.0)
    inside = inputs.mask.sum(-1)
    return ObjectiveOutput(
        loss_sum=((inside - accepted) * inputs.anchor_weight / depths).sum(),
        loss_count=(inside * inputs.anchor_weight / depths).sum(),
        depth_loss_sum=(1.0 - _kept(inputs.alpha, ratio).detach()).masked_fill(~inputs.mask, 0.0).sum(0),
    )


def _kept(alpha: Tensor, ratio: Tensor) -> Tensor:
    """R_j alpha_j, the acceptance of the whole draft through depth j along the text: [N, k], [N, k] -> [N, k]."""
    reached, kept = torch.ones_like(alpha[:, 0]), []
    for alpha_j, ratio_j in zip(alpha.unbind(-1), ratio.unbind(-1), strict=True):
        kept.append(reached * alpha_j)
        reached = reached * ratio_j
    return torch.stack(kept, -1)


def _geometric(alpha: Tensor, terms: int) -> Tensor:
    """Accepted drafts of `terms` depths that are accepted with alpha each, alpha + ... + alpha^terms: [N] -> [N]."""
    total = torch.zeros_like(alpha)
    for _ in range(terms):
        total = alpha * (1.0 + total)
    return total
