"""The one input and the one output of every objective.

Shapes: N anchors, k depths, V vocabulary entries. Depth j is column j - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from openrlhf_mtp.losses.acceptance import overlap


@dataclass(frozen=True)
class ObjectiveInput:
    """What an objective sees: drafts and targets of the same tokens, already at the rollout's temperature.

    Attributes:
        draft_logits: logits of q^j [N, k, V], divided by the temperature.
        target_logits: logits of p at the position each draft is compared with [N, k, V], detached, divided by
            the same temperature.
        tokens: the token both distributions are about, x_{i+j+1} [N, k].
        mask: true where the depth counts at this anchor [N, k]; a row is true up to some depth, false after it.
            Uncounted entries hold valid numbers of no meaning.
    """

    draft_logits: Tensor
    target_logits: Tensor
    tokens: Tensor
    mask: Tensor

    @cached_property
    def alpha(self) -> Tensor:
        """Overlap sum_v min(p_v, q_v) [N, k]; see `acceptance.overlap`."""
        return overlap(self.draft_logits, self.target_logits)


@dataclass(frozen=True)
class ObjectiveOutput:
    """Sums, so that micro-batches and ranks may be added up in any grouping; the caller divides.

    Attributes:
        loss_sum: what is minimised, summed over what is counted (scalar, differentiable).
        loss_count: how much was counted: `loss_sum / loss_count` is the objective's mean (scalar).
        depth_loss_sum: the loss by depth, summed over the mask's columns [k]; detached, for metrics.
    """

    loss_sum: Tensor
    loss_count: Tensor
    depth_loss_sum: Tensor


Objective = Callable[[ObjectiveInput], ObjectiveOutput]


def mean_over_depths(losses: Tensor, mask: Tensor) -> ObjectiveOutput:
    """Per-depth losses [N, k] as an objective that counts every depth inside the mask, each with weight 1/k.

    An anchor whose k depths are all inside counts as 1, one with only its first depth as 1/k.
    """
    depths = losses.shape[-1]
    counted = losses.masked_fill(~mask, 0.0)
    return ObjectiveOutput(
        loss_sum=counted.sum() / depths,
        loss_count=mask.sum().to(losses.dtype) / depths,
        depth_loss_sum=counted.detach().sum(0),
    )
