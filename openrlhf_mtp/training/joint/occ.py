"""OCC: how much of the MTP loss the policy should get, tracked over training (arXiv 2605.28184).

One step on the policy's objective plus lambda times the MTP loss changes the policy's objective by

    eta lambda (1 - L eta) <g_RL, g_MTP> - (L eta^2 lambda^2 / 2) |g_MTP|^2

so the best lambda is proportional to <g_RL, g_MTP> / |g_MTP|^2. The two gradients are replaced by what they did to the
log-probs of the same action tokens since the rollout,

    delta_RL = log pi - log pi_old,    delta_MTP = log pi_MTP - log pi_old

    lambda_j = lambda_plus * sum(delta_RL delta_MTP) / (sum(delta_MTP^2) + 1e-8)          for each depth j

summed over the action tokens that depth j predicts, of the whole optimizer step, over all data-parallel ranks: so the
coefficient does not depend on the split into micro-batches. A negative value turns a harmful direction round. On
the first optimizer step after a rollout delta_RL is 0, and so is lambda. The form of the paper's public code is in
`occ_released`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.joint.coefficient import ActionTokens, Factors, HeadLogProbs, Smoothing, on_losses
from openrlhf_mtp.training.joint.metrics import JointMetrics
from openrlhf_mtp.training.reduce import all_reduce_sum

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


class OCC:
    """The paper's coefficient: a ratio of sums over the optimizer step's tokens, over all ranks."""

    measures_occ = False  # its sums are the two terms

    def __init__(self, settings: CoefficientSettings, depths: int, metrics: JointMetrics) -> None:
        self.settings, self.depths, self.metrics = settings, depths, metrics
        self.smoothing = Smoothing(settings)

    def ahead(self, *, policy_has_moved: bool) -> Tensor | None:
        """0 as long as the policy has not moved; otherwise it depends on the tokens."""
        return None if policy_has_moved else torch.zeros(self.depths, dtype=torch.float64)

    def is_needed(self, coefficient: Tensor | None, *, policy_has_moved: bool) -> bool:
        """Not at a coefficient of 0, which adds nothing."""
        return coefficient is None or bool(coefficient.any())

    def sums(self, tokens: ActionTokens, head: HeadLogProbs) -> Tensor:
        """`occ_sums` of a micro-batch [3, k]."""
        return occ_sums(tokens.log_probs, tokens.old_log_probs, head.values.detach(), head.mask)

    def of(self, sums: Tensor) -> Tensor:
        """lambda_j from this rank's sums [3, k] -> [k] (collective)."""
        sums = all_reduce_sum(sums)
        self.metrics.add_terms(sums)
        sums = sums.cpu()
        return self.smoothing.settled(occ_coefficient(sums, self.settings.scale), tokens=float(sums[2].sum()))

    def factors(self, coefficient: Tensor) -> Factors:
        """lambda_j / k on each depth's loss."""
        return on_losses(coefficient)

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""
        return self.smoothing.state()

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore what `state()` returned."""
        self.smoothing.load_state(state)
