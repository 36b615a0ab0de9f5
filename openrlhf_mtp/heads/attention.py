"""Attention of a chain over its depths, as the rollout engine computes it step by step.

Depth 1 runs over all positions and leaves a key at each. Depth j at anchor i attends to depth 1's keys at positions
0 ... i of its segment, and to one key for each of its own chain's depths 2 ... j, at positions i+1 ... i+j-1:

    query (anchor i, depth 3)  ->  k^1_0  k^1_1  ...  k^1_i   k^2_i   k^3_i

Over all anchors that is a causal [A, T] pattern plus a diagonal for each further depth. `chain_attention` computes the
first part in slices of anchors and joins the diagonals by their log-sum-exp; no [A, T + (j-1) A] mask or score matrix
is ever built; the tests hold it to a form that builds both (`tests/unit/heads/attention_reference.py`).

On CUDA in 16 bits FlashAttention computes the first part (`flash`), unless the anchors are scattered. On a CPU torch's
fused attention does not: only private operators return its log-sum-exp, and those want the mask as a tensor. They are
not faster either. Forward and backward of one depth on one core, 8 query heads of width 64 on 2 key heads, 4 rows of
1,024 positions: 0.36 s here against 0.46 s in float32, 0.30 s against 0.41 s in bfloat16. They win by up to 1.4 times
at 256 positions and fewer. On a GPU nothing was compared yet.

Shapes: B batch, N query heads, K key-value heads, G = N / K, T positions, A anchors, D head width, j depths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from openrlhf_mtp.heads import flash
from openrlhf_mtp.heads.grid import AnchorGrid, Slice
from openrlhf_mtp.heads.recompute import Kept

SLICE_SCORES = {"cpu": 2**20, "cuda": 2**26}
"""Scores of one slice, over all heads and keys, by kind of device. In float32 4 MiB, which stay in a core's cache from
one pass over them to the next, and 256 MiB, which keep a GPU busy."""


def chain_attention(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    grid: AnchorGrid,
    scale: float,
    kept: Kept | None = None,
) -> Tensor:
    """Attention of depth j = len(keys) at every anchor.

    Args:
        query: depth j's queries [B, N, A, D].
        keys: keys of depth 1 at every position [B, K, T, D], and of depths 2 ... j at the anchors [B, K, A, D] each.
        values: values likewise.
        grid: the anchors, and which of depth 1's keys they see.
        scale: factor on the scores, usually D^-1/2.
        kept: holds the result for a second run (`recompute`).

    Returns:
        [B, N, A, D] in the query's dtype; softmax and sums in float32 (float64 for float64 input). The output at
        padding means nothing.
    """
    attended: Tensor = _ChainAttention.apply(  # type: ignore[no-untyped-call]
        query, grid, scale, kept, len(keys), *keys, *values
    )
    return attended


def _statistics(tensor: Tensor) -> torch.dtype:
    """The dtype of softmax and sums."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _grouped(heads: Tensor, groups: int) -> Tensor:
    """[B, K G, A, D] -> [B, K, A, G, D]: the query heads that share a key lie together, as rows of one product."""
    return heads.unflatten(1, (-1, groups)).transpose(2, 3).contiguous()


def _ungrouped(heads: Tensor) -> Tensor:
    """[B, K, A, G, D] -> [B, K G, A, D]."""
    return heads.transpose(2, 3).flatten(1, 2)


def _product(left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
    """scale * left @ right, the factor applied inside the product: [b, K, n, m], [b, K, m, p] -> [b, K, n, p]."""
    ignored = left.new_empty(())
    product = torch.baddbmm(ignored, left.flatten(0, 1), right.flatten(0, 1), beta=0, alpha=scale)
    return product.unflatten(0, left.shape[:2])


def _slices(query: Tensor, grid: AnchorGrid) -> Iterator[Slice]:
    """Slices of the anchors for queries [B, K, A, G, D]."""
    return grid.slices(
        query.shape[1] * query.shape[3], SLICE_SCORES.get(query.device.type, SLICE_SCORES["cuda"])
    )


def _scores(query: Tensor, key: Tensor, grid: AnchorGrid, part: Slice, scale: float) -> Tensor:
    """Queries [b, K, a G, D] against keys [b, K, t, D] of a slice: [b, K, a, G, t] in the statistics' dtype, -inf where
    the key is hidden."""
    hidden = grid.hidden(part)
    scores = _product(query, key.mT, scale).to(_statistics(query)).unflatten(2, (hidden.shape[1], -1))
    return scores.masked_fill_(hidden[:, None, :, None], float("-inf"))


def _attended(
    q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], grid: AnchorGrid, scale: float
) -> tuple[Tensor, Tensor]:
    """The attention of queries [B, K, A, G, D], in their shape and dtype, and the log-sum-exp of their scores over all
    keys [B, K, A, G]."""
    runs = grid.runs if flash.takes(q) else None
    if runs is None:
        output, lse = _first_depth(q, keys[0], values[0], grid, scale)
    else:
        output, lse = flash.attend(q, keys[0], values[0], runs, scale)
        output = output.to(_statistics(q))
    # the diagonals: one more key for each deeper depth, joined to what was attended so far
    for key, value in zip(keys[1:], values[1:], strict=True):
        score = (q * key[:, :, :, None]).sum(-1, dtype=lse.dtype) * scale
        joined = torch.logaddexp(lse, score)
        output *= (lse - joined).exp()[..., None]
        output += (score - joined).exp()[..., None] * value[:, :, :, None]
        lse = joined
    return output.to(q.dtype), lse


def _first_depth(
    q: Tensor, key: Tensor, value: Tensor, grid: AnchorGrid, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention to depth 1's keys alone, as `_attended` returns it; the output in the statistics' dtype."""
    key, value = key.contiguous(), value.contiguous()
    output = torch.empty(q.shape, dtype=_statistics(q), device=q.device)
    lse = torch.empty(q.shape[:-1], dtype=output.dtype, device=q.device)
    for part in _slices(q, grid):
        here, seen = (part.rows, slice(None), part.anchors), (part.rows, slice(None), part.keys)
        scores = _scores(q[here].flatten(2, 3), key[seen], grid, part, scale)
        weights = scores.softmax(-1)
        # the largest weight is exp(largest score - lse)
        lse[here] = scores.amax(-1) - weights.amax(-1).log()
        output[here] = _product(weights.to(value.dtype).flatten(2, 3), value[seen]).view_as(output[here])
    return output, lse


class _ChainAttention(torch.autograd.Function):
    """Forward keeps the output and the log-sum-exp over *all* keys; backward rebuilds every probability from it."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: Tensor,
        grid: AnchorGrid,
        scale: float,
        kept: Kept | None,
        depths: int,
        *keys_values: Tensor,
    ) -> Tensor:
        keys, values = keys_values[:depths], keys_values[depths:]
        q = _grouped(query, query.shape[1] // keys[0].shape[1])
        compute = partial(_attended, q, keys, values, grid, scale)
        result, lse = compute() if kept is None else kept.pair(compute)
        ctx.save_for_backward(q, result, lse, *keys_values)
        ctx.grid, ctx.scale, ctx.depths = grid, scale, depths  # type: ignore[attr-defined]
        return _ungrouped(result)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, output, lse, *keys_values = ctx.saved_tensors  # type: ignore[attr-defined]
        grid, scale, depths = ctx.grid, ctx.scale, ctx.depths  # type: ignore[attr-defined]
        keys, values = keys_values[:depths], keys_values[depths:]
        grad = _grouped(grad, q.shape[3])
        # d score = p (d p - sum p d p), and sum p d p over all keys is the output times its gradient
        mean = (grad * output).sum(-1, dtype=lse.dtype)
        first = (q, keys[0], values[0], grad)
        runs = grid.runs if flash.takes(q) else None
        if runs is None:
            grad_q, grad_key, grad_value = _first_depth_gradients(*first, lse, mean, grid, scale)
        else:
            grad_q, grad_key, grad_value = flash.gradients(*first, output, lse, runs, scale)
        grad_keys, grad_values = [grad_key], [grad_value]
        for key, value in zip(keys[1:], values[1:], strict=True):
            key, value = key[:, :, :, None], value[:, :, :, None]
            weight = ((q * key).sum(-1, dtype=lse.dtype) * scale - lse).exp()
            grad_score = (weight * ((grad * value).sum(-1, dtype=lse.dtype) - mean) * scale)[..., None]
            grad_q += grad_score * key
            grad_keys.append((grad_score * q).sum(3))
            grad_values.append((weight[..., None] * grad).sum(3))
        grads = [g.to(t.dtype) for g, t in zip([*grad_keys, *grad_values], keys_values, strict=True)]
        return _ungrouped(grad_q).to(q.dtype), None, None, None, None, *grads


def _first_depth_gradients(
    q: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor,
    lse: Tensor,
    mean: Tensor,
    grid: AnchorGrid,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the queries, and of depth 1's keys and values, through the scores between them."""
    key, value = key.contiguous(), value.contiguous()
    grad_q = torch.empty(q.shape, dtype=lse.dtype, device=q.device)
    grad_key, grad_value = (torch.zeros(key.shape, dtype=lse.dtype, device=q.device) for _ in range(2))
    for part in _slices(q, grid):
        here, seen = (part.rows, slice(None), part.anchors), (part.rows, slice(None), part.keys)
        queries, grads = q[here].flatten(2, 3), grad[here].flatten(2, 3)
        weights = _scores(queries, key[seen], grid, part, scale).sub_(lse[here][..., None]).exp_()
        weights = weights.flatten(2, 3)
        grad_value[seen] += _product(weights.to(q.dtype).mT, grads)
        grad_scores = _product(grads, value[seen].mT).to(lse.dtype)
        grad_scores = grad_scores.sub_(mean[here].flatten(2, 3)[..., None]).mul_(weights).to(q.dtype)
        grad_q[here] = _product(grad_scores, key[seen], scale).view_as(grad_q[here])
        grad_key[seen] += _product(grad_scores.mT, queries, scale)
    return grad_q, grad_key, grad_value
