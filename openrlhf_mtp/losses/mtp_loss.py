"""The loss of a batch: logits chunk by chunk, sums over anchors, gradients for the head and for nothing else.

Logits of all anchors ([N, k, V]; 20 GB for 10,000 anchors of a 152k vocabulary at k = 3) never exist at once. The
loss is a sum over anchors, so each chunk's gradient with respect to the head's hidden states is final when its
logits are at hand: it is computed right there and only [N, k, H] is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import linear

from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.acceptance import entropy, expected_accepted
from openrlhf_mtp.losses.alignment import Anchors, find_anchors
from openrlhf_mtp.losses.types import Objective, ObjectiveInput, ObjectiveOutput

CHUNK_LOGITS = 2**26
"""Draft logits of one chunk, over all depths: 256 MiB in float32; about six times that is live at the peak."""


@dataclass(frozen=True)
class AnchorRecords:
    """Per-anchor figures, for plots; detached. Only entries inside the anchors' mask mean anything.

    Attributes:
        entropy: entropy of the policy's distribution that depth j is compared with, in nats [N, k].
        alpha: overlap at depth j [N, k].
    """

    entropy: Tensor
    alpha: Tensor


@dataclass(frozen=True)
class MTPLossOutput:
    """Sums over the counted anchors of a micro-batch; only `loss_sum` carries a gradient.

    Attributes:
        loss_sum: what to minimise, after division by whatever the caller normalises with (scalar).
        loss_count: `loss_sum / loss_count` is the objective's mean (scalar).
        depth_loss_sum: loss by depth [k], over `depth_count` anchors each.
        depth_count: anchors counted at each depth [k]; the same for every objective.
        alpha_sum: overlap sum_v min(p_v, q_v) by depth [k], over `depth_count` anchors each.
        entropy_sum: entropy of the policy at depth 1's targets, in nats (scalar), over `entropy_count` anchors.
        length_sum: 1 + expected accepted drafts (scalar), over the `horizon_count` anchors with all depths inside.
        horizon_count: those anchors (scalar).
        anchors: the anchors that were counted, N of them.
        records: per-anchor figures [N, k].
    """

    loss_sum: Tensor
    loss_count: Tensor
    depth_loss_sum: Tensor
    depth_count: Tensor
    alpha_sum: Tensor
    entropy_sum: Tensor
    length_sum: Tensor
    horizon_count: Tensor
    anchors: Anchors
    records: AnchorRecords

    @property
    def entropy_count(self) -> Tensor:
        """Anchors behind `entropy_sum`: those that count at depth 1."""
        return self.depth_count[0]


@dataclass(frozen=True)
class _Batch:
    """Constants of a batch: all detached from the trunk, the temperature already inside `scale`."""

    target_states: Tensor  # [B * T, H]
    output_weight: Tensor  # [V, H]
    anchors: Anchors
    objective: Objective
    scale: float

    def logits(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., V] at the rollout's temperature, in float32 or better."""
        logits = linear(states.to(self.output_weight.dtype), self.output_weight)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)) * self.scale

    def chunk(self, rows: slice, states: Tensor) -> ObjectiveInput:
        """The objective's view of some anchors, whose hidden states are `states` [n, k, H]."""
        anchors = self.anchors
        # anchors i and i+1 share k-1 of their k targets: each target's logits are computed once
        needed, where = anchors.target_index[rows].unique(return_inverse=True)
        with torch.no_grad():
            target_logits = self.logits(self.target_states[needed])[where]
        return ObjectiveInput(self.logits(states), target_logits, anchors.tokens[rows], anchors.mask[rows])


def _chunk_sums(inputs: ObjectiveInput, output: ObjectiveOutput) -> tuple[list[Tensor], AnchorRecords]:
    """What a chunk adds to the fields of `MTPLossOutput`, in their order, and its per-anchor figures."""
    alpha, mask = inputs.alpha.detach(), inputs.mask
    target_entropy = entropy(inputs.target_logits)
    horizon = mask[:, -1]
    sums = [
        output.loss_sum.detach(),
        output.loss_count,
        output.depth_loss_sum,
        mask.sum(0).to(alpha.dtype),
        alpha.masked_fill(~mask, 0.0).sum(0),
        target_entropy[:, 0].sum(),
        (1.0 + expected_accepted(alpha)).masked_fill(~horizon, 0.0).sum(),
        horizon.sum().to(alpha.dtype),
    ]
    return sums, AnchorRecords(entropy=target_entropy, alpha=alpha)


class _ChunkedLoss(torch.autograd.Function):
    """Sums over chunks of anchors, `MTPLossOutput`'s fields in order; the gradient is computed in the forward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, batch: _Batch, chunk_anchors: int) -> tuple[Tensor, ...]:
        needs_grad = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        gradient = torch.zeros_like(states) if needs_grad else None
        totals, records = [], []
        # an empty batch still runs one empty chunk, so that every rank returns sums of the right shape
        for start in range(0, max(len(states), 1), chunk_anchors):
            rows = slice(start, start + chunk_anchors)
            with torch.set_grad_enabled(needs_grad):
                piece = states[rows].detach().requires_grad_(needs_grad)
                inputs = batch.chunk(rows, piece)
                output = batch.objective(inputs)
            if gradient is not None:
                (gradient[rows],) = torch.autograd.grad(output.loss_sum, piece)
            sums, record = _chunk_sums(inputs, output)
            totals.append(sums)
            records.append(record)
        ctx.save_for_backward(gradient)  # type: ignore[arg-type]
        loss_sum, *statistics = (torch.stack(field).sum(0) for field in zip(*totals, strict=True))
        statistics += [torch.cat([r.entropy for r in records]), torch.cat([r.alpha for r in records])]
        ctx.mark_non_differentiable(*statistics)
        return loss_sum, *statistics

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * grad.to(gradient.dtype), None, None


def mtp_loss(
    states: Sequence[Tensor],
    target_hidden: Tensor,
    output_weight: Tensor,
    input_ids: Tensor,
    action_mask: Tensor,
    segment_ids: Tensor,
    *,
    objective: str,
    temperature: float,
    vocab_size: int | None = None,
    chunk_anchors: int | None = None,
) -> MTPLossOutput:
    """Loss of a head's chain on one micro-batch, as sums.

    The trunk is a constant here, whatever is passed: this is the one place that detaches its hidden states and its
    output head.

    Args:
        states: the chain's outputs z^1 ... z^k, each [B, T, H], anchored (`heads.head.MTPHead`).
        target_hidden: the policy's last hidden states h, after its final norm [B, T, H].
        output_weight: the policy's output head [V', H], V' >= V.
        input_ids: tokens [B, T].
        action_mask: true where the token at that position was sampled by the policy [B, T].
        segment_ids: equal and nonzero within a sample, 0 for padding [B, T].
        objective: a name in `losses.OBJECTIVES`.
        temperature: the rollout's; both distributions are taken at it.
        vocab_size: V, when the output head has padded rows beyond it; they are cut off before any softmax.
        chunk_anchors: anchors whose logits exist at once; by default as many as `CHUNK_LOGITS` allows.

    Raises:
        ValueError: an unknown objective, or a temperature that is not positive.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: got {objective!r}, expected one of {', '.join(OBJECTIVES)}")
    if not temperature > 0.0:
        raise ValueError(
            f"temperature: got {temperature}, expected > 0; drafts are accepted by sampling, and greedy decoding has "
            "no distribution to overlap with"
        )
    depths = len(states)
    weight = output_weight.detach()[:vocab_size]
    anchors = find_anchors(input_ids, action_mask, segment_ids, depths)
    batch = _Batch(
        target_states=target_hidden.detach().flatten(0, 1),
        output_weight=weight,
        anchors=anchors,
        objective=OBJECTIVES[objective],
        scale=1.0 / temperature,
    )
    chunk_anchors = chunk_anchors or max(1, CHUNK_LOGITS // (depths * weight.shape[0]))
    anchored = torch.stack([z.flatten(0, 1)[anchors.index] for z in states], dim=1)
    *sums, target_entropy, alpha = _ChunkedLoss.apply(anchored, batch, chunk_anchors)  # type: ignore[no-untyped-call]
    outputs = [*sums, anchors, AnchorRecords(target_entropy, alpha)]
    return MTPLossOutput(*outputs)
