"""OCC as its public code computes it, for comparison with the paper (MarkXCloud/RL-MTP; arXiv 2605.28184).

It differs from the paper in four ways: a mean of per-token ratios in place of a ratio of sums, depth 1 alone, each
rank's own coefficient, and a coefficient inside the advantage, so that a negative one also turns the clipping round.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.joint.coefficient import Scored
from openrlhf_mtp.training.joint.occ import EPSILON, Smoothing
from openrlhf_mtp.training.step_inputs import StepCoefficient


def released_code_sums(
    log_probs: Tensor, old_log_probs: Tensor, head_log_probs: Tensor, action_mask: Tensor
) -> Tensor:
    """Sums behind the mean of the per-token ratio over the responses, their padding included.

    A token whose head happens to agree with the old policy (delta_MTP near 0) enters with a huge ratio; a position
    without a log-prob enters as 0. Only depth 1 is used and nothing is reduced over ranks.

    Args:
        log_probs: of the action tokens under the policy [B, S].
        old_log_probs: under the policy that scored them before its first update on them [B, S].
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


class ReleasedOCC:
    """The public code's coefficient; the same methods as `occ.OCC`."""

    needs_occ_measured = True

    def __init__(self, settings: CoefficientSettings, depths: int) -> None:
        self.settings, self.depths = settings, depths
        self.smoothing = Smoothing(settings)
        nothing = torch.zeros(depths, dtype=torch.float64)
        self.before_move = self._inside(nothing)._replace(is_needed=False)
        self.after_move: StepCoefficient | None = None

    def decide(self, scored: Sequence[Scored]) -> StepCoefficient:
        """lambda_j on the advantages, from this rank's micro-batches; nothing is reduced."""
        return self._inside(self.from_sums(reduce(torch.add, map(_sums, scored))))

    def from_sums(self, sums: Tensor) -> Tensor:
        """The mean ratio from this rank's sums: [2] -> [k], 0 beyond depth 1."""
        coefficient = torch.zeros(self.depths, dtype=torch.float64)
        total, positions = sums.tolist()
        coefficient[0] = self.settings.scale * total / max(1.0, positions)
        return self.smoothing.smoothed(coefficient, tokens=positions)

    def _inside(self, values: Tensor) -> StepCoefficient:
        """Factors on the advantages; a depth without a coefficient has no loss.

        The term is computed even at 0: whether a rank's own coefficient is 0 must not decide what all ranks compute.
        """
        inside = values.tolist()
        return StepCoefficient(values, inside, [float(factor != 0.0) for factor in inside], is_needed=True)

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""
        return self.smoothing.state()

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore what `state()` returned."""
        self.smoothing.load_state(state)


def _sums(scored: Scored) -> Tensor:
    """`released_code_sums` of a micro-batch [2]."""
    tokens, head_log_probs = scored
    # positions without a log-prob count as no difference, as padding does there
    values = torch.where(head_log_probs.mask, head_log_probs.constants, tokens.old_log_probs)
    return released_code_sums(tokens.log_probs, tokens.old_log_probs, values, tokens.mask)
