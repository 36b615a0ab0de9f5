"""The row kernels in Triton, for a GPU: the same three passes over the vocabulary as `rows_torch`, contract in `rows`.

A program walks a span of one row in tiles; every sum is kept per lane and reduced once at its end, so that the loop
is nothing but loads and arithmetic. Spans are merged afterwards in torch (a few numbers a row), in a fixed order: the
result does not depend on the schedule. All of it is bound by memory: pass one reads both sides once, pass two again,
pass three reads both and writes the gradient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from openrlhf_mtp.losses.kernels.types import LEAST_LOG, RowGradients, RowMax, RowScalars

TILE = 2048
"""Logits a program holds at once: 8 a thread, so that the five sums of pass two stay in registers."""
SPAN = 8 * TILE
"""Columns of one program: a row of 151,936 is shared by ten, enough to fill a GPU with a few hundred rows."""
WARPS = 8

_LEAST_LOG = tl.constexpr(LEAST_LOG)
_FAR_BELOW = tl.constexpr(-3e38)
"""Stands for -inf where a difference of two such logits must be 0 and not NaN."""


@triton.jit
def _load_tile(logits, row, stride, column, columns, other, WIDE: tl.constexpr):
    """A tile of one row in full precision; the row's offset may exceed 32 bits."""
    start = logits + row.to(tl.int64) * stride
    return tl.load(start + column, mask=column < columns, other=other).to(WIDE)


@triton.jit
def _log_prob(logits, lse):
    """Log-probabilities no smaller than LEAST_LOG; NaN stays NaN, so that a broken model does not look healthy."""
    return tl.maximum(logits - lse, _LEAST_LOG, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _peak_kernel(
    logits,
    stride,
    columns,
    largest,
    total,
    mode,
    WIDE: tl.constexpr,
    TILE: tl.constexpr,
    SPAN: tl.constexpr,
):
    """One span's largest logit, sum of exp(logit - largest), and the column of the largest."""
    row, span = tl.program_id(0), tl.program_id(1)
    lane_max = tl.full([TILE], _FAR_BELOW, WIDE)
    lane_sum = tl.full([TILE], 0.0, WIDE)
    lane_mode = tl.full([TILE], 0, tl.int32)
    for first in range(span * SPAN, tl.minimum((span + 1) * SPAN, columns), TILE):
        column = first + tl.arange(0, TILE)
        x = _load_tile(logits, row, stride, column, columns, float("-inf"), WIDE)
        x = tl.maximum(x, _FAR_BELOW, propagate_nan=tl.PropagateNan.ALL)
        # one of the two exponentials of the online sum is always exp(0)
        scale = tl.exp(-tl.abs(x - lane_max))
        rises = x > lane_max
        lane_sum = tl.where(rises, lane_sum * scale + 1.0, lane_sum + scale)
        lane_mode = tl.where(rises, column, lane_mode)
        lane_max = tl.where(rises, x, lane_max)
    peak = tl.max(lane_max, 0)
    out = row.to(tl.int64) * tl.num_programs(1) + span
    tl.store(largest + out, peak)
    tl.store(total + out, tl.sum(lane_sum * tl.exp(lane_max - peak), 0))
    tl.store(mode + out, tl.min(tl.where(lane_max == peak, lane_mode, columns), 0))


@triton.jit
def _overlap_kernel(
    draft,
    draft_stride,
    target,
    target_stride,
    target_row,
    columns,
    lse_q,
    lse_p,
    shares,
    WIDE: tl.constexpr,
    TILE: tl.constexpr,
    SPAN: tl.constexpr,
):
    """One span's share of alpha, overlap_mass, kl, reverse_kl and entropy, in this order."""
    row, span = tl.program_id(0), tl.program_id(1)
    p_row = tl.load(target_row + row)
    row_lse_q, row_lse_p = tl.load(lse_q + row), tl.load(lse_p + row)
    alpha = tl.full([TILE], 0.0, WIDE)
    overlap_mass, kl, reverse_kl, entropy = alpha, alpha, alpha, alpha
    for first in range(span * SPAN, tl.minimum((span + 1) * SPAN, columns), TILE):
        column = first + tl.arange(0, TILE)
        # past the last column both logs are LEAST_LOG and both probabilities 0: nothing is added
        log_q = _log_prob(
            _load_tile(draft, row, draft_stride, column, columns, float("-inf"), WIDE), row_lse_q
        )
        log_p = _log_prob(
            _load_tile(target, p_row, target_stride, column, columns, float("-inf"), WIDE), row_lse_p
        )
        q, p = tl.exp(log_q), tl.exp(log_p)
        # written so that NaN passes
        alpha += tl.where(q > p, p, q)
        overlap_mass += tl.where(q > p, 0.0, q)
        kl += p * (log_p - log_q)
        reverse_kl += q * (log_q - log_p)
        entropy -= p * log_p
    out = row.to(tl.int64) * tl.num_programs(1) + span
    step = tl.num_programs(0).to(tl.int64) * tl.num_programs(1)
    tl.store(shares + out, tl.sum(alpha, 0))
    tl.store(shares + step + out, tl.sum(overlap_mass, 0))
    tl.store(shares + 2 * step + out, tl.sum(kl, 0))
    tl.store(shares + 3 * step + out, tl.sum(reverse_kl, 0))
    tl.store(shares + 4 * step + out, tl.sum(entropy, 0))


@triton.jit
def _gradient_kernel(
    draft,
    draft_stride,
    target,
    target_stride,
    target_row,
    tokens,
    columns,
    lse_q,
    lse_p,
    overlap_mass,
    reverse_kl,
    g_alpha,
    g_kl,
    g_reverse_kl,
    g_log_q,
    WIDE: tl.constexpr,
    TILE: tl.constexpr,
):
    """One tile of dL/d logits over the draft logits; a gradient that is None is left out at compile time."""
    row = tl.program_id(0)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    log_q = _log_prob(
        _load_tile(draft, row, draft_stride, column, columns, float("-inf"), WIDE), tl.load(lse_q + row)
    )
    # everything is q times a factor, but for the token's column and the pull of KL towards p
    factor = tl.full([TILE], 0.0, WIDE)
    if g_alpha is not None or g_kl is not None or g_reverse_kl is not None:
        p_row = tl.load(target_row + row)
        log_p = _log_prob(
            _load_tile(target, p_row, target_stride, column, columns, float("-inf"), WIDE),
            tl.load(lse_p + row),
        )
        if g_alpha is not None:
            factor += tl.load(g_alpha + row) * (
                tl.where(log_q <= log_p, 1.0, 0.0) - tl.load(overlap_mass + row)
            )
        if g_reverse_kl is not None:
            factor += tl.load(g_reverse_kl + row) * (log_q - log_p - tl.load(reverse_kl + row))
        if g_kl is not None:
            factor += tl.load(g_kl + row)
    if g_log_q is not None:
        factor -= tl.load(g_log_q + row)
    gradient = factor * tl.exp(log_q)
    if g_kl is not None:
        gradient -= tl.load(g_kl + row) * tl.exp(log_p)
    if g_log_q is not None:
        gradient += tl.where(column == tl.load(tokens + row), tl.load(g_log_q + row), 0.0)
    out = draft + row.to(tl.int64) * draft_stride + column
    tl.store(out, gradient.to(draft.dtype.element_ty), mask=column < columns)


def _wide_type(logits: Tensor) -> tl.dtype:
    return tl.float64 if logits.dtype == torch.float64 else tl.float32


def _row_max_of(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Largest logit, sum of exp(logit - largest) and column of the largest, of every row [R]."""
    rows, columns = logits.shape
    spans = triton.cdiv(columns, SPAN)
    largest = logits.new_empty(rows, spans, dtype=torch.promote_types(logits.dtype, torch.float32))
    total, mode = torch.empty_like(largest), torch.empty_like(largest, dtype=torch.int32)
    if rows:
        _peak_kernel[(rows, spans)](
            logits,
            logits.stride(0),
            columns,
            largest,
            total,
            mode,
            WIDE=_wide_type(logits),
            TILE=TILE,
            SPAN=SPAN,
            num_warps=WARPS,
        )
    peak, where = largest.max(-1)
    return (
        peak,
        (total * (largest - peak[:, None]).exp()).sum(-1),
        mode.gather(-1, where[:, None])[:, 0].long(),
    )


def row_max(draft_logits: Tensor, target_logits: Tensor) -> RowMax:
    """The first pass: maxima, sums and modes."""
    max_q, sum_q, mode = _row_max_of(draft_logits)
    max_p, sum_p, _ = _row_max_of(target_logits)
    return RowMax(max_q, sum_q, mode, max_p, sum_p)


def overlaps(
    draft_logits: Tensor, target_logits: Tensor, target_row: Tensor, lse_q: Tensor, lse_p: Tensor
) -> Tensor:
    """Second pass: this part's share of alpha, overlap_mass, kl, reverse_kl and entropy, stacked [5, R]."""
    rows, columns = draft_logits.shape
    shares = lse_q.new_empty(5, rows, triton.cdiv(columns, SPAN))
    if rows:
        _overlap_kernel[shares.shape[1:]](
            draft_logits,
            draft_logits.stride(0),
            target_logits,
            target_logits.stride(0),
            target_row,
            columns,
            lse_q,
            lse_p,
            shares,
            WIDE=_wide_type(draft_logits),
            TILE=TILE,
            SPAN=SPAN,
            num_warps=WARPS,
        )
    return shares.sum(-1)


def gradient_(
    draft_logits: Tensor,
    target_logits: Tensor,
    target_row: Tensor,
    tokens: Tensor,
    scalars: RowScalars,
    gradients: RowGradients,
) -> Tensor:
    """Third pass: dL/dz over z, from the saved scalars."""
    rows, columns = draft_logits.shape
    if rows:
        _gradient_kernel[(rows, triton.cdiv(columns, TILE))](
            draft_logits,
            draft_logits.stride(0),
            target_logits,
            target_logits.stride(0),
            target_row,
            tokens,
            columns,
            scalars.lse_q,
            scalars.lse_p,
            scalars.overlap_mass,
            scalars.reverse_kl,
            gradients.alpha,
            gradients.kl,
            gradients.reverse_kl,
            gradients.log_q,
            WIDE=_wide_type(draft_logits),
            TILE=TILE,
            num_warps=WARPS,
        )
    return draft_logits
