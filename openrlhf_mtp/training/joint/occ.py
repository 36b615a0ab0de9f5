"""OCC: how much of the MTP loss the policy should get, tracked over training (arXiv 2605.28184).

One step on the policy's objective plus lambda times the MTP loss changes the policy's objective by

    eta lambda (1 - L eta) <g_RL, g_MTP> - (L eta^2 lambda^2 / 2) |g_MTP|^2

so the best lambda is proportional to <g_RL, g_MTP> / |g_MTP|^2. The two gradients are replaced by what they did to the
log-probs of the same action tokens since the rollout,

    delta_RL = log pi - log pi_old,    delta_MTP = log pi_MTP - log pi_old

    lambda_j = lambda_plus * sum(delta_RL delta_MTP) / (sum(delta_MTP^2) + 1e-8)          for each depth j

summed over the action tokens that depth j predicts, of the whole optimizer step, over all data-parallel ranks: so the
coefficient does not depend on the split into micro-batches. A negative value turns a harmful direction round. On
the first optimizer step after a rollout delta_RL is 0, and so is lambda.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8


def occ_sums(log_probs: Tensor, old_log_probs: Tensor, head_log_probs: Tensor, mask: Tensor) -> Tensor:
    """The sums behind the coefficient; add them over micro-batches and ranks.

    Args:
        log_probs: of the action tokens under the policy [B, S].
        old_log_probs: under the policy that generated them [B, S].
        head_log_probs: under the head, by depth [k, B, S].
        mask: tokens that depth j predicts [k, B, S].

    Returns:
        sum(delta_RL delta_MTP), sum(delta_MTP^2) and the number of tokens, by depth: [3, k] in float64.
    """
    old = old_log_probs.double()
    rl = (log_probs.double() - old).masked_fill(~mask, 0.0)
    mtp = (head_log_probs.double() - old).masked_fill(~mask, 0.0)
    return torch.stack([(rl * mtp).sum((1, 2)), mtp.square().sum((1, 2)), mask.sum((1, 2)).double()])


def occ_coefficient(sums: Tensor, scale: float) -> Tensor:
    """lambda_j from the sums of `occ_sums`: [3, k] -> [k]."""
    alignment, magnitude, _ = sums
    coefficient: Tensor = scale * alignment / (magnitude + EPSILON)
    return coefficient


def released_code_sums(
    log_probs: Tensor, old_log_probs: Tensor, head_log_probs: Tensor, action_mask: Tensor
) -> Tensor:
    """Sums of the public code's form: the mean of the per-token ratio over the responses, their padding included.

    A token whose head happens to agree with the old policy (delta_MTP near 0) enters with a huge ratio; a position
    without a log-prob enters as 0. Only depth 1 is used and nothing is reduced over ranks.

    Args:
        log_probs: of the action tokens under the policy [B, S].
        old_log_probs: under the policy that generated them [B, S].
        head_log_probs: under the head, by depth [k, B, S]; `old_log_probs` where it has none.
        action_mask: true for action tokens [B, S].

    Returns:
        sum of the ratios, number of positions (rows times the longest response): [2] in float64.
    """
    old = old_log_probs.double()
    rl, mtp = log_probs.double() - old, head_log_probs[0].double() - old
    ratio = rl * mtp / (mtp.square() + EPSILON)
    positions = action_mask.sum(1).max() * len(action_mask)
    return torch.stack([ratio.masked_fill(~action_mask.bool(), 0.0).sum(), positions.double()])
