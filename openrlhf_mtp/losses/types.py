"""The one input and the one output of every objective.

Shapes: N anchors, k depths. Depth j is column j - 1. Everything over the vocabulary has been summed already (`rows`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ObjectiveInput:
    """Statistics of the draft q^j and the policy p at each anchor and depth, at the rollout's temperature.

    Attributes:
        alpha: overlap sum_v min(p_v, q_v) [N, k].
        kl: KL(p || q), nat [N, k].
        reverse_kl: KL(q || p), nat [N, k].
        log_q: log q of the token that was sampled, nat [N, k].
        log_p: log p of the same token, nat, a constant [N, k].
        mask: true where the depth counts at this anchor [N, k]; a row is true up to some depth, false after it.
            Uncounted entries hold finite numbers of no meaning.
        anchor: place of each anchor in the micro-batch, for objectives that were made for it [N].
        anchor_weight: how much each anchor matters, 1 on average [N] (`advantage`).
        depth_weight: how much each depth matters, 1 on average [k]; end-to-end objectives weigh depths by themselves.
    """

    alpha: Tensor
    kl: Tensor
    reverse_kl: Tensor
    log_q: Tensor
    log_p: Tensor
    mask: Tensor
    anchor: Tensor
    anchor_weight: Tensor
    depth_weight: Tensor


@dataclass(frozen=True)
class ObjectiveOutput:
    """Sums, so that micro-batches and ranks may be added up in any grouping; the caller divides.

    Attributes:
        loss_sum: what is minimized, summed over what is counted with its weights (scalar, differentiable).
        loss_count: how much was counted, with its weights: `loss_sum / loss_count` is the objective's mean (scalar).
        depth_loss_sum: the loss by depth, summed over the mask's columns without weights [k]; detached, for metrics.
    """

    loss_sum: Tensor
    loss_count: Tensor
    depth_loss_sum: Tensor


Objective = Callable[[ObjectiveInput], ObjectiveOutput]


def anchor_counts(objective: Objective, mask: Tensor, depth_weight: Tensor) -> Tensor:
    """Each anchor's contribution to an objective's `loss_count` at weight 1: [N, k], [k] -> [N].

    The count is a sum over anchors, linear in their weights and blind to everything but the mask, so it is read off as
    its derivative.
    """
    blank = torch.zeros(mask.shape, dtype=depth_weight.dtype, device=mask.device)
    with torch.enable_grad():
        weight = torch.ones(len(mask), dtype=depth_weight.dtype, device=mask.device, requires_grad=True)
        every = torch.arange(len(mask), device=mask.device)
        inputs = ObjectiveInput(blank, blank, blank, blank, blank, mask, every, weight, depth_weight)
        count = objective(inputs).loss_count
        (counts,) = torch.autograd.grad(count, weight)
    return counts


def mean_over_depths(losses: Tensor, inputs: ObjectiveInput) -> ObjectiveOutput:
    """Per-depth losses [N, k] as an objective that counts every depth inside the mask, 1/k each on average.

    An anchor whose k depths are all inside counts as 1, one with only its first depth as 1/k (uniform weights).
    """
    depths = losses.shape[-1]
    counted = losses.masked_fill(~inputs.mask, 0.0)
    weight = inputs.anchor_weight[:, None] * inputs.depth_weight * inputs.mask / depths
    return ObjectiveOutput(
        loss_sum=(counted * weight).sum(),
        loss_count=weight.sum(),
        depth_loss_sum=counted.detach().sum(0),
    )
