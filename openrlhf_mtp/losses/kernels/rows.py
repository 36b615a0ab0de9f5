"""Per-row statistics of draft and target logits, and their gradient.

A row is one anchor at one depth. With q = softmax(draft logits), p = softmax(target logits) and the token x:

    alpha      = sum_v min(p_v, q_v)                 d/dz_v = q_v (1[q_v <= p_v] - S),  S = sum_v q_v 1[q_v <= p_v]
    kl         = sum_v p_v (log p_v - log q_v)       d/dz_v = q_v - p_v
    reverse_kl = sum_v q_v (log q_v - log p_v)       d/dz_v = q_v (log q_v - log p_v - reverse_kl)
    log_q      = log q_x                             d/dz_v = 1[v = x] - q_v

Every objective is a function of these (Bebop, arXiv 2606.12370, section 4; LK losses, arXiv 2602.23881), so one pair
of kernels serves all: two passes over the vocabulary give the scalars, a third writes the gradient over the draft
logits. No [rows, vocabulary] tensor of probabilities is stored. A tie q_v = p_v is accepted and belongs to q.

The vocabulary may be split over a tensor-parallel group: maxima are reduced first, then normalizers, then the sums.
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor

from openrlhf_mtp.losses.kernels.types import LEAST_LOG, WHOLE, RowGradients, RowMax, RowScalars, Shard


def _kernels(logits: Tensor) -> ModuleType:
    if logits.is_cuda:
        from openrlhf_mtp.losses.kernels import rows_triton

        return rows_triton
    from openrlhf_mtp.losses.kernels import rows_torch

    return rows_torch


def _at(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """logits[row, column] in full precision, 0 where the column lies outside (in another rank's part)."""
    inside = (columns >= 0) & (columns < logits.shape[1])
    picked = logits[rows, columns.where(inside, 0)].to(torch.promote_types(logits.dtype, torch.float32))
    return picked.where(inside, 0.0)


def row_statistics(
    draft_logits: Tensor, target_logits: Tensor, target_row: Tensor, tokens: Tensor, shard: Shard = WHOLE
) -> RowScalars:
    """The scalars of every row; nothing is differentiated here.

    Args:
        draft_logits: at the rollout's temperature [R, V].
        target_logits: at the same temperature [M, V]; rows that share a target repeat no logits.
        target_row: which target each row is compared with [R].
        tokens: the token each row is about, counted over the whole vocabulary [R].
        shard: this rank's part of the vocabulary.
    """
    kernels, local = _kernels(draft_logits), tokens - shard.start
    row_max: RowMax = kernels.row_max(draft_logits, target_logits)
    max_q, max_p = row_max.max_q.clone(), row_max.max_p.clone()
    shard.reduce(max_q, dist.ReduceOp.MAX)
    shard.reduce(max_p, dist.ReduceOp.MAX)
    # a part whose own maximum is not the whole's did not hold the draft's mode
    at_mode = _at(target_logits, target_row, row_max.mode).masked_fill(row_max.max_q < max_q, float("-inf"))
    shard.reduce(at_mode, dist.ReduceOp.MAX)
    every = torch.arange(len(draft_logits), device=draft_logits.device)
    at_token = [_at(draft_logits, every, local), _at(target_logits, target_row, local)]
    sums = torch.stack([row_max.sum_q * (row_max.max_q - max_q).exp(), *at_token])
    shard.reduce(sums, dist.ReduceOp.SUM)
    sum_p = shard.reduce(row_max.sum_p * (row_max.max_p - max_p).exp(), dist.ReduceOp.SUM)
    lse_q, lse_p = max_q + sums[0].log(), (max_p + sum_p.log())[target_row]
    overlaps = kernels.overlaps(draft_logits, target_logits, target_row, lse_q, lse_p)
    alpha, overlap_mass, kl, reverse_kl, entropy = shard.reduce(overlaps, dist.ReduceOp.SUM).unbind()
    return RowScalars(
        lse_q=lse_q,
        lse_p=lse_p,
        alpha=alpha,
        overlap_mass=overlap_mass,
        kl=kl,
        reverse_kl=reverse_kl,
        log_q=(sums[1] - lse_q).clamp(min=LEAST_LOG),
        log_p=(sums[2] - lse_p).clamp(min=LEAST_LOG),
        entropy=entropy,
        greedy_alpha=(at_mode - lse_p).exp(),
    )


def row_gradient_(
    draft_logits: Tensor,
    target_logits: Tensor,
    target_row: Tensor,
    tokens: Tensor,
    scalars: RowScalars,
    gradients: RowGradients,
    shard: Shard = WHOLE,
) -> Tensor:
    """Overwrite the draft logits [R, V] with the gradient with respect to them, and return them."""
    kernels, local = _kernels(draft_logits), tokens - shard.start
    result: Tensor = kernels.gradient_(draft_logits, target_logits, target_row, local, scalars, gradients)
    return result
