"""The row kernels in plain torch, for a CPU: tiles of a few rows, small enough to stay in the cache.

Contract in `rows.py`; `rows_triton.py` is the same for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from openrlhf_mtp.losses.rows import LEAST_LOG, Peaks, RowGradients, RowScalars

TILE = 2**18
"""Logits of one tile: 1 MiB in float32."""


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _tiles(logits: Tensor) -> Iterator[slice]:
    step = max(1, TILE // max(1, logits.shape[1]))
    for start in range(0, len(logits), step):
        yield slice(start, start + step)


def _at(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """logits[row, column] in full precision, 0 where the column lies outside."""
    inside = (columns >= 0) & (columns < logits.shape[1])
    picked = _wide(logits[rows, columns.where(inside, 0)])
    return picked.where(inside, 0.0)


def peaks(draft_logits: Tensor, target_logits: Tensor, target_row: Tensor, tokens: Tensor) -> Peaks:
    """First pass; `tokens` count from this part's first column."""
    rows = torch.arange(len(draft_logits), device=draft_logits.device)
    max_q, mode = draft_logits.max(-1)
    max_q, max_p = _wide(max_q), _wide(target_logits.amax(-1))

    def normalizer(logits: Tensor, largest: Tensor) -> Tensor:
        total = torch.empty_like(largest)
        for tile in _tiles(logits):
            total[tile] = (_wide(logits[tile]) - largest[tile, None]).exp_().sum(-1)
        return total

    return Peaks(
        max_q=max_q,
        sum_q=normalizer(draft_logits, max_q),
        max_p=max_p,
        sum_p=normalizer(target_logits, max_p),
        draft_at_token=_at(draft_logits, rows, tokens),
        target_at_token=_at(target_logits, target_row, tokens),
        target_at_mode=_wide(target_logits[target_row, mode]),
    )


def _log_probs(logits: Tensor, lse: Tensor) -> Tensor:
    return (_wide(logits) - lse[:, None]).clamp_(min=LEAST_LOG)


def overlaps(
    draft_logits: Tensor, target_logits: Tensor, target_row: Tensor, lse_q: Tensor, lse_p: Tensor
) -> Tensor:
    """Second pass: this part's share of alpha, covered, kl, reverse_kl and entropy, stacked [5, R]."""
    shares = lse_q.new_empty(5, len(draft_logits))
    for tile in _tiles(draft_logits):
        log_q = _log_probs(draft_logits[tile], lse_q[tile])
        log_p = _log_probs(target_logits[target_row[tile]], lse_p[tile])
        q, p = log_q.exp(), log_p.exp()
        negative_entropy = torch.linalg.vecdot(p, log_p)
        shares[1, tile] = (q * (q <= p)).sum(-1)
        shares[2, tile] = negative_entropy - torch.linalg.vecdot(p, log_q)
        shares[3, tile] = torch.linalg.vecdot(q, log_q.sub_(log_p))
        shares[4, tile] = -negative_entropy
        shares[0, tile] = torch.minimum(p, q, out=log_p).sum(-1)
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
    for tile in _tiles(draft_logits):
        log_q = _log_probs(draft_logits[tile], scalars.lse_q[tile])
        q = log_q.exp()
        # everything is q times a factor, but for the token's column and the pull of KL towards p
        factor = torch.zeros_like(q)
        if gradients.log_q is not None:
            factor -= gradients.log_q[tile, None]
        if gradients.alpha is not None or gradients.kl is not None or gradients.reverse_kl is not None:
            log_p = _log_probs(target_logits[target_row[tile]], scalars.lse_p[tile])
        if gradients.alpha is not None:
            push = gradients.alpha[tile, None]
            factor += torch.where(
                log_q <= log_p,
                push * (1.0 - scalars.covered[tile, None]),
                -push * scalars.covered[tile, None],
            )
        if gradients.reverse_kl is not None:
            excess = log_q - log_p - scalars.reverse_kl[tile, None]
            factor += excess * gradients.reverse_kl[tile, None]
        if gradients.kl is not None:
            factor += gradients.kl[tile, None]
        factor *= q
        if gradients.kl is not None:
            factor -= log_p.exp_() * gradients.kl[tile, None]
        draft_logits[tile] = factor
    if gradients.log_q is not None:
        inside = (tokens >= 0) & (tokens < draft_logits.shape[1])
        rows = inside.nonzero().flatten()
        draft_logits[rows, tokens[rows]] += gradients.log_q[rows].to(draft_logits.dtype)
    return draft_logits
