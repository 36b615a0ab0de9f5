"""OCC: how much of the MTP loss the policy should get, tracked over training (arXiv 2605.28184).

One step on the policy's objective plus lambda times the MTP loss changes the policy's objective by

    eta lambda (1 - L eta) <g_RL, g_MTP> - (L eta^2 lambda^2 / 2) |g_MTP|^2

so the best lambda is proportional to <g_RL, g_MTP> / |g_MTP|^2. The two gradients are replaced by what they did to the
log-probs of the same action tokens since the policy scored them,

    delta_RL = log pi - log pi_old,    delta_MTP = log pi_MTP - log pi_old

    lambda_j = lambda_plus * sum(delta_RL delta_MTP) / (sum(delta_MTP^2) + 1e-8)          for each depth j

summed over the action tokens that depth j predicts, of the whole optimizer step, over all data-parallel ranks: so the
coefficient does not depend on the split into micro-batches. A negative value turns a harmful direction round. On
the first optimizer step after a rollout delta_RL is 0, and so is lambda. The form of the paper's public code is in
`occ_released`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.joint.coefficient import Scored
from openrlhf_mtp.training.reduce import all_reduce_sum
from openrlhf_mtp.training.step_inputs import StepCoefficient

EPSILON = 1e-8


def occ_sums(log_probs: Tensor, old_log_probs: Tensor, head_log_probs: Tensor, mask: Tensor) -> Tensor:
    """The sums behind the coefficient; add them over micro-batches and ranks.

    Args:
        log_probs: of the action tokens under the policy [B, S].
        old_log_probs: under the policy that scored them before its first update on them [B, S].
        head_log_probs: under the head, by depth [k, B, S].
        mask: tokens that depth j predicts [k, B, S].

    Returns:
        sum(delta_RL delta_MTP), sum(delta_MTP^2) and the number of tokens, by depth: [3, k] in float64.
    """
    old = old_log_probs.double()
    rl = (log_probs.double() - old).masked_fill(~mask, 0.0)
    mtp = (head_log_probs.double() - old).masked_fill(~mask, 0.0)
    return torch.stack([(rl * mtp).sum((1, 2)), mtp.square().sum((1, 2)), mask.sum((1, 2)).double()])


def sums_of(scored: Scored) -> Tensor:
    """`occ_sums` of a micro-batch [3, k]."""
    tokens, head_log_probs = scored
    return occ_sums(tokens.log_probs, tokens.old_log_probs, head_log_probs.constants, head_log_probs.mask)


def occ_coefficient(sums: Tensor, scale: float) -> Tensor:
    """lambda_j from the sums of `occ_sums`: [3, k] -> [k]."""
    alignment, magnitude, _ = sums
    coefficient: Tensor = scale * alignment / (magnitude + EPSILON)
    return coefficient


class Smoothing:
    """Mix a coefficient with the optimizer step's before, then bound it; both are off by default."""

    def __init__(self, settings: CoefficientSettings) -> None:
        self.settings = settings
        self._previous: Tensor | None = None

    def smoothed(self, coefficient: Tensor, *, tokens: float) -> Tensor:
        """The coefficient that is used [k].

        Without tokens, it is 0 and nothing is remembered.
        """
        if not tokens:
            return torch.zeros_like(coefficient)
        if self._previous is not None and self.settings.smoothing > 0.0:
            weight = self.settings.smoothing
            coefficient = weight * self._previous + (1.0 - weight) * coefficient
        self._previous = coefficient
        if self.settings.bounds is not None:
            coefficient = coefficient.clamp(*self.settings.bounds)
        return coefficient

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""
        return {} if self._previous is None else {"previous": self._previous.tolist()}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore what `state()` returned."""
        if "previous" in state:
            self._previous = torch.tensor(state["previous"], dtype=torch.float64)


class OCC:
    """The paper's coefficient: a ratio of sums over the optimizer step's tokens, over all ranks."""

    needs_occ_measured = False  # its sums are the two terms

    def __init__(self, settings: CoefficientSettings, depths: int) -> None:
        self.settings, self.depths = settings, depths
        self.smoothing = Smoothing(settings)
        self.before_move = self._on_losses(torch.zeros(depths, dtype=torch.float64))
        self.after_move: StepCoefficient | None = None

    def decide(self, scored: Sequence[Scored]) -> StepCoefficient:
        """lambda_j / k on each depth's loss, from the sums of all micro-batches and ranks (collective)."""
        sums = all_reduce_sum(reduce(torch.add, map(sums_of, scored)))
        return self._on_losses(self.from_sums(sums), sums)

    def from_sums(self, sums: Tensor) -> Tensor:
        """lambda_j from the sums over all ranks: [3, k] -> [k], smoothed and bounded."""
        sums = sums.cpu()
        return self.smoothing.smoothed(
            occ_coefficient(sums, self.settings.scale), tokens=float(sums[2].sum())
        )

    def _on_losses(self, values: Tensor, sums: Tensor | None = None) -> StepCoefficient:
        """The joint term's mean over depths, (1/k) sum_j lambda_j L_j; at a lambda of 0 there is nothing to add."""
        outside = (values / self.depths).tolist()
        return StepCoefficient(values, [1.0] * self.depths, outside, bool(values.any()), sums)

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""
        return self.smoothing.state()

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore what `state()` returned."""
        self.smoothing.load_state(state)
