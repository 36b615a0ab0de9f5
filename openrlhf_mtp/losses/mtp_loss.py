"""The loss of a batch: logits chunk by chunk, sums over anchors, gradients for the head and for nothing else.

Logits of all anchors ([N, k, V]; 20 GB for 10,000 anchors of a 152k vocabulary at k = 3) never exist at once. The
loss is a sum over anchors and an anchor's loss needs its own depths only, so a chunk of anchors with all its depths
is complete: project, reduce each row to a few scalars (`rows`), let the objective differentiate those, write the
gradient over the logits, project it back. Nothing is projected twice, and one gradient as large as the chain's states
is kept for backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from openrlhf_mtp.losses.acceptance import acceptance_ratio, expected_accepted_on_text
from openrlhf_mtp.losses.alignment import Anchors
from openrlhf_mtp.losses.kernels.projection import CHUNK_LOGITS, Scratch, project
from openrlhf_mtp.losses.kernels.rows import row_gradient_, row_statistics
from openrlhf_mtp.losses.kernels.types import WHOLE, RowGradients, RowScalars, Shard
from openrlhf_mtp.losses.targets import Targets
from openrlhf_mtp.losses.types import Objective, ObjectiveInput, ObjectiveOutput


class Sums(NamedTuple):
    """Sums over the counted anchors of a micro-batch; only `loss_sum` carries a gradient.

    Attributes:
        loss_sum: what to minimize, after division by whatever the caller normalizes with (scalar).
        loss_count: `loss_sum / loss_count` is the objective's mean (scalar).
        depth_loss_sum: loss by depth [k], over `depth_count` anchors each.
        depth_count: anchors counted at each depth [k]; the same for every objective.
        alpha_sum: overlap sum_v min(p_v, q_v) by depth [k], over `depth_count` anchors each.
        greedy_sum: p(argmax q) by depth [k], what a greedy draft would be accepted with, over `depth_count` anchors.
        entropy_sum: entropy of the policy at depth 1's targets, in nats (scalar), over `depth_count[0]` anchors.
        length_sum: 1 + accepted drafts along the text (scalar), over `depth_count[0]` anchors
            (`acceptance.expected_accepted_on_text`).
    """

    loss_sum: Tensor
    loss_count: Tensor
    depth_loss_sum: Tensor
    depth_count: Tensor
    alpha_sum: Tensor
    greedy_sum: Tensor
    entropy_sum: Tensor
    length_sum: Tensor


class AnchorRecords(NamedTuple):
    """Per-anchor figures [N, k], detached. Only entries inside the anchors' mask mean anything.

    Attributes:
        entropy: entropy of the policy's distribution that depth j is compared with, in nats.
        alpha: overlap at depth j, the acceptance of a sampled draft.
        greedy: p(argmax q), the acceptance of a greedy draft.
        log_q: log-prob of the sampled token under the draft.
        log_p: under the policy.
    """

    entropy: Tensor
    alpha: Tensor
    greedy: Tensor
    log_q: Tensor
    log_p: Tensor


@dataclass(frozen=True)
class MTPLossOutput:
    """Sums, per-anchor figures, and the anchors they belong to."""

    sums: Sums
    records: AnchorRecords
    anchors: Anchors

    @property
    def loss_sum(self) -> Tensor:
        """The sum to minimize (scalar, differentiable)."""
        return self.sums.loss_sum


@dataclass(frozen=True)
class OutputHead:
    """The policy's projection to logits, as constants.

    Attributes:
        weight: [V, H]; one part of the vocabulary when `shard` says so.
        temperature: the rollout's; logits are divided by it.
        shard: this rank's part of a tensor-parallel vocabulary.
        chunk_logits: most logits that may exist at once.
    """

    weight: Tensor
    temperature: float
    shard: Shard = WHOLE
    chunk_logits: int = CHUNK_LOGITS

    @classmethod
    def of(
        cls, weight: Tensor, temperature: float, *, vocab_size: int | None = None, **options: object
    ) -> OutputHead:
        """Take the policy's detached output head [V', H] and cut its padded rows beyond `vocab_size` off.

        Raises:
            ValueError: the temperature is not positive.
        """
        if not temperature > 0.0:
            raise ValueError(
                f"temperature: got {temperature}, expected > 0; drafts are accepted by sampling, and greedy decoding "
                "has no distribution to overlap with"
            )
        assert not weight.requires_grad, "this loss takes constants of the policy"
        return cls(weight[:vocab_size], temperature, **options)  # type: ignore[arg-type]

    def logits(self, states: Tensor, scratch: Scratch) -> Tensor:
        """[R, H] -> [R, V], in `scratch`."""
        return project(states, self.weight, self.temperature, scratch)

    def backprop_states(self, gradient: Tensor) -> Tensor:
        """dL/d logits [R, V] -> this part's share of dL/d states [R, H]."""
        states = gradient @ self.weight
        return states if self.temperature == 1.0 else states.div_(self.temperature)

    def anchors_at_once(self, depths: int) -> int:
        """The number of anchors in a chunk, the same on all ranks that share the vocabulary (collective)."""
        return max(1, self.chunk_logits // (depths * self.shard.largest(self.weight)))


@dataclass(frozen=True)
class _Batch:
    """Constants of a batch."""

    output_head: OutputHead
    targets: Targets
    anchors: Anchors
    objective: Objective
    anchor_weight: Tensor  # [N]
    depth_weight: Tensor  # [k]

    def chunk(
        self, rows: slice, states: Tensor, scratch: tuple[Scratch, Scratch], *, needs_grad: bool
    ) -> tuple[Sums, AnchorRecords, Tensor | None]:
        """Some anchors, whose hidden states are `states` [n, k, H]: their sums, figures and dL/d states.

        `scratch` holds the logits of drafts and of targets.
        """
        anchors, shape = self.anchors, states.shape[:2]
        # anchors i and i+1 share k-1 of their k targets: each target's logits are there once
        needed, target_row = anchors.target_index[rows].unique(return_inverse=True)
        draft, target = (
            self.output_head.logits(states.flatten(0, 1), scratch[0]),
            self.targets(needed, scratch[1]),
        )
        where = (target_row.flatten(), anchors.tokens[rows].flatten())
        scalars = row_statistics(draft, target, *where, self.output_head.shard)
        inputs, output, gradients = self._differentiated(scalars, rows, shape, needs_grad=needs_grad)
        gradient = None
        if needs_grad:
            row_gradient_(draft, target, *where, scalars, gradients, self.output_head.shard)
            gradient = self.output_head.backprop_states(draft).view_as(states)
        figures = (scalars.entropy, scalars.alpha, scalars.greedy_alpha, scalars.log_q, scalars.log_p)
        records = AnchorRecords(*(figure.view(shape) for figure in figures))
        return _chunk_sums(inputs, output, records), records, gradient

    def _differentiated(
        self, scalars: RowScalars, rows: slice, shape: torch.Size, *, needs_grad: bool
    ) -> tuple[ObjectiveInput, ObjectiveOutput, RowGradients]:
        """The objective on the rows' scalars, and its derivative with respect to them."""
        values = (scalars.alpha, scalars.kl, scalars.reverse_kl, scalars.log_q)
        with torch.set_grad_enabled(needs_grad):
            leaves = [value.view(shape).detach().requires_grad_(needs_grad) for value in values]
            alpha, kl, reverse_kl, log_q = leaves
            inputs = ObjectiveInput(
                alpha=alpha,
                kl=kl,
                reverse_kl=reverse_kl,
                log_q=log_q,
                log_p=scalars.log_p.view(shape),
                mask=self.anchors.mask[rows],
                anchor=torch.arange(len(self.anchor_weight), device=alpha.device)[rows],
                anchor_weight=self.anchor_weight[rows].to(alpha.dtype),
                depth_weight=self.depth_weight.to(alpha.dtype),
            )
            output = self.objective(inputs)
        if not needs_grad:
            return inputs, output, RowGradients()
        grads = torch.autograd.grad(output.loss_sum, leaves, allow_unused=True)
        return inputs, output, RowGradients(*(None if g is None else g.flatten() for g in grads))


def _chunk_sums(inputs: ObjectiveInput, output: ObjectiveOutput, records: AnchorRecords) -> Sums:
    """A chunk's contribution to the sums."""
    mask, dtype = inputs.mask, records.alpha.dtype
    accepted = expected_accepted_on_text(records.alpha, acceptance_ratio(records.log_q, records.log_p), mask)
    return Sums(
        loss_sum=output.loss_sum.detach(),
        loss_count=output.loss_count,
        depth_loss_sum=output.depth_loss_sum,
        depth_count=mask.sum(0).to(dtype),
        alpha_sum=records.alpha.masked_fill(~mask, 0.0).sum(0),
        greedy_sum=records.greedy.masked_fill(~mask, 0.0).sum(0),
        entropy_sum=records.entropy[:, 0].sum(),
        length_sum=(1.0 + accepted).sum(),
    )


class _ChunkedLoss(torch.autograd.Function):
    """`Sums` and `AnchorRecords`, field by field; the gradient comes with the forward pass, backward only scales it.

    Hidden states stay where they are, depth by depth on the anchors' grid: a chunk alone is put together.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, batch: _Batch, *states: Tensor) -> tuple[Tensor, ...]:
        needs_grad = any(ctx.needs_input_grad[1:])  # type: ignore[attr-defined]
        flat = [z.detach().flatten(0, 1) for z in states]
        gradients = [torch.zeros_like(z, memory_format=torch.contiguous_format) for z in states if needs_grad]
        places, step = batch.anchors.place, batch.output_head.anchors_at_once(len(states))
        totals, records, scratch = [], [], (Scratch(), Scratch())
        # an empty batch still runs one empty chunk, so that every rank returns sums of the right shape
        for start in range(0, max(len(places), 1), step):
            rows = slice(start, start + step)
            chunk = torch.stack([z[places[rows]] for z in flat], dim=1)
            sums, record, piece = batch.chunk(rows, chunk, scratch, needs_grad=needs_grad)
            if piece is not None:
                for gradient, of_depth in zip(gradients, piece.unbind(1), strict=True):
                    gradient.flatten(0, 1)[places[rows]] = of_depth
            totals.append(sums)
            records.append(record)
        for gradient in gradients:
            batch.output_head.shard.reduce(gradient, dist.ReduceOp.SUM)
        ctx.save_for_backward(*gradients)
        loss_sum, *statistics = (torch.stack(field).sum(0) for field in zip(*totals, strict=True))
        statistics += [torch.cat(field) for field in zip(*records, strict=True)]
        ctx.mark_non_differentiable(*statistics)
        return loss_sum, *statistics

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors  # type: ignore[attr-defined]
        return None, *(gradient * grad.to(gradient.dtype) for gradient in gradients)


def depth_weights(depths: int, decay: float) -> Tensor:
    """decay^(j-1) for depth j, scaled to a mean of 1 [k]; FastMTP (arXiv 2509.18362) takes 0.6, 1 is uniform.

    >>> depth_weights(2, 0.5).tolist()
    [1.3333333333333333, 0.6666666666666666]
    """
    weight = decay ** torch.arange(depths, dtype=torch.float64)
    return weight * depths / weight.sum()


def mtp_loss(
    states: Sequence[Tensor],
    anchors: Anchors,
    targets: Targets,
    output_head: OutputHead,
    objective: Objective,
    *,
    row_weight: Tensor | None = None,
    depth_decay: float = 1.0,
) -> MTPLossOutput:
    """Loss of a head's chain on one micro-batch, as sums.

    Args:
        states: the chain's outputs z^1 ... z^k at the anchors' grid, each [B, A, H] (`heads.head.MTPHead`).
        anchors: which anchors, from `find_anchors`.
        targets: the policy's logits (`targets`).
        output_head: the policy's output head.
        objective: what is minimized, from `OBJECTIVES` or `mixture`.
        row_weight: weight of each row of the batch [B], 1 on average (`advantage`); unset is 1.
        depth_decay: weight of each depth after the first as a share of the one before.
    """
    depths = len(states)
    index = anchors.row
    weight = torch.ones(len(index), device=index.device) if row_weight is None else row_weight[index]
    batch = _Batch(
        output_head=output_head,
        targets=targets,
        anchors=anchors,
        objective=objective,
        anchor_weight=weight / anchors.fraction,
        depth_weight=depth_weights(depths, depth_decay).to(index.device),
    )
    outputs = _ChunkedLoss.apply(batch, *states)  # type: ignore[no-untyped-call]
    fields = len(Sums._fields)
    return MTPLossOutput(Sums(*outputs[:fields]), AnchorRecords(*outputs[fields:]), anchors)
