"""The row kernels in plain torch, for a CPU: tiles of a few rows, small enough to stay in the cache.

Contract in `rows.py`; `rows_triton.py` is the same for a GPU. How it is written was measured (ns a number, one core):
exp 0.8, argmax 0.8, a choice by `where` 3.5; a product, a sum, a maximum or a comparison written as floats 0.1; and up
to 10 for results in fresh memory, whose pages the kernel must clear. Hence the buffers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from openrlhf_mtp.losses.kernels.types import LEAST_LOG, RowGradients, RowMax, RowScalars

TILE = 2**19
"""Logits of one tile: 2 MiB in float32, a few rows of a large vocabulary."""
BLOCK = 512
"""Columns whose maxima are compared first when the largest logit is looked for."""


def _tiles(logits: Tensor, buffers: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Slices of a few rows [r], each with the same uninitialized [r, V] in full precision."""
    rows, columns = logits.shape
    step = min(rows, max(1, TILE // columns))
    wide = torch.promote_types(logits.dtype, torch.float32)
    space = [torch.empty(step, columns, dtype=wide) for _ in range(buffers)]
    for start in range(0, rows, max(1, step)):
        stop = min(start + step, rows)
        yield slice(start, stop), [buffer[: stop - start] for buffer in space]


def _mode(logits: Tensor) -> Tensor:
    """argmax of each row: the best block first, then the place inside it; the rest of the row is a short block."""
    whole = logits.shape[1] // BLOCK * BLOCK
    rest = logits[:, whole:]
    if not whole:
        return rest.argmax(-1)
    blocks = logits[:, :whole].unflatten(1, (-1, BLOCK))
    block = blocks.amax(-1).argmax(-1)
    best, place = blocks[torch.arange(len(logits)), block].max(-1)
    column: Tensor = block * BLOCK + place
    if not rest.shape[1]:
        return column
    best_of_rest, place = rest.max(-1)
    return torch.where(best_of_rest > best, whole + place, column)


def _row_max_of(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Largest logit, sum of exp(logit - largest), and column of the largest, of every row."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    largest, total = logits.new_empty(2, len(logits), dtype=wide)
    mode = torch.empty(len(logits), dtype=torch.long)
    for tile, (probs,) in _tiles(logits, 1):
        rows = logits[tile]
        mode[tile] = _mode(rows)
        where = mode[tile, None]
        largest[tile] = rows.gather(1, where)[:, 0]
        # the softmax of the largest logit is one over the sum; torch's softmax is faster than its exp
        total[tile] = torch.softmax(rows.to(wide), -1, out=probs).gather(1, where)[:, 0].reciprocal()
    return largest, total, mode


def row_max(draft_logits: Tensor, target_logits: Tensor) -> RowMax:
    """The first pass: maxima, sums and modes."""
    max_q, sum_q, mode = _row_max_of(draft_logits)
    max_p, sum_p, _ = _row_max_of(target_logits)
    return RowMax(max_q, sum_q, mode, max_p, sum_p)


def _log_probs(logits: Tensor, lse: Tensor, out: Tensor) -> Tensor:
    torch.sub(logits, lse[:, None], out=out)
    return out.clamp_(min=LEAST_LOG)


def _target_log_probs(logits: Tensor, rows: Tensor, lse: Tensor, out: Tensor) -> Tensor:
    """Log-probs of the targets of some rows [r, V]."""
    if logits.dtype == out.dtype:
        return _log_probs(torch.index_select(logits, 0, rows, out=out), lse, out)
    return _log_probs(logits.index_select(0, rows), lse, out)


def overlaps(
    draft_logits: Tensor, target_logits: Tensor, target_row: Tensor, lse_q: Tensor, lse_p: Tensor
) -> Tensor:
    """Second pass: this part's share of alpha, overlap_mass, kl, reverse_kl and entropy, stacked [5, R]."""
    shares = lse_q.new_empty(5, len(draft_logits))
    for tile, (log_q, log_p, q, p) in _tiles(draft_logits, 4):
        _log_probs(draft_logits[tile], lse_q[tile], out=log_q)
        _target_log_probs(target_logits, target_row[tile], lse_p[tile], out=log_p)
        torch.exp(log_q, out=q)
        torch.exp(log_p, out=p)
        negative_entropy = torch.linalg.vecdot(p, log_p)
        shares[4, tile] = -negative_entropy
        shares[2, tile] = negative_entropy - torch.linalg.vecdot(p, log_q)
        shares[3, tile] = torch.linalg.vecdot(q, log_q.sub_(log_p))
        shares[0, tile] = torch.minimum(p, q, out=log_p).sum(-1)
        shares[1, tile] = torch.linalg.vecdot(q, torch.le(q, p, out=log_q))
    return shares


def gradient_(
    draft_logits: Tensor,
    target_logits: Tensor,
    target_row: Tensor,
    tokens: Tensor,
    scalars: RowScalars,
    gradients: RowGradients,
) -> Tensor:
    """Third pass: dL/dz over z, from the saved scalars."""
    needs_target = any(g is not None for g in (gradients.alpha, gradients.kl, gradients.reverse_kl))
    for tile, (log_q, log_p, factor, excess) in _tiles(draft_logits, 4):
        _log_probs(draft_logits[tile], scalars.lse_q[tile], out=log_q)
        if needs_target:
            _target_log_probs(target_logits, target_row[tile], scalars.lse_p[tile], out=log_p)

        def column(values: Tensor, tile: slice = tile) -> Tensor:
            return values[tile, None]

        # everything is q times a factor, but for the token's column and the pull of KL towards p
        if gradients.alpha is None:
            factor.zero_()
        else:
            torch.le(log_q, log_p, out=factor)
            factor.sub_(column(scalars.overlap_mass)).mul_(column(gradients.alpha))
        if gradients.reverse_kl is not None:
            torch.sub(log_q, log_p, out=excess).sub_(column(scalars.reverse_kl))
            factor.add_(excess.mul_(column(gradients.reverse_kl)))
        for gradient, sign in ((gradients.kl, 1), (gradients.log_q, -1)):
            if gradient is not None:
                factor.add_(column(gradient), alpha=sign)
        factor.mul_(log_q.exp_())
        if gradients.kl is not None:
            factor.sub_(log_p.exp_().mul_(column(gradients.kl)))
        draft_logits[tile] = factor
    if gradients.log_q is not None:
        rows = ((tokens >= 0) & (tokens < draft_logits.shape[1])).nonzero().flatten()
        draft_logits[rows, tokens[rows]] += gradients.log_q[rows].to(draft_logits.dtype)
    return draft_logits
