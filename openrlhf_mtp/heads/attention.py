"""Attention of a chain over its depths, as the rollout engine computes it step by step.

Depth 1 runs over all positions and leaves a key at each. Depth j at anchor i attends to depth 1's keys at positions
0 ... i of its segment, and to one key for each of its own chain's depths 2 ... j, at positions i+1 ... i+j-1:

    query (anchor i, depth 3)  ->  k^1_0  k^1_1  ...  k^1_i   k^2_i   k^3_i

Over all anchors that is a causal [T, T] pattern plus a diagonal for each further depth. `chain_attention` computes the
first part in slices of queries and joins the diagonals by their log-sum-exp; no [T, j T] mask or score matrix is ever
built. `chain_attention_reference` builds both, and is what the former must equal.

Shapes: B batch, N query heads, K key-value heads (N a multiple of K), T positions, D head width, j depths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

SLICE_SCORES = 2**26
"""Scores of one slice of queries, over all heads and keys: 256 MiB in float32."""


def chain_attention_reference(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], segment_ids: Tensor, scale: float
) -> Tensor:
    """The rule written down with an explicit [T, j T] mask, for tests.

    Arguments and result as in `chain_attention`.
    """
    length, groups = query.shape[2], query.shape[1] // keys[0].shape[1]
    same_segment = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    diagonal = torch.eye(length, dtype=torch.bool, device=query.device).expand_as(same_segment)
    mask = torch.cat([same_segment & causal, *[diagonal] * (len(keys) - 1)], dim=-1)
    key = torch.cat(list(keys), dim=2).repeat_interleave(groups, dim=1)
    value = torch.cat(list(values), dim=2).repeat_interleave(groups, dim=1)
    scores = (query @ key.mT * scale).masked_fill(~mask, float("-inf"))
    return scores.to(_statistics(query)).softmax(-1).to(value.dtype) @ value


def chain_attention(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], segment_ids: Tensor, scale: float
) -> Tensor:
    """Attention of depth j = len(keys) at every anchor.

    Args:
        query: depth j's queries [B, N, T, D].
        keys: keys of depths 1 ... j, each [B, K, T, D].
        values: values of depths 1 ... j, each [B, K, T, D].
        segment_ids: anchors see depth-1 keys of their own segment only [B, T]. Padding counts as a segment, so every
            row has a key; what comes out there means nothing.
        scale: factor on the scores, usually D^-1/2.

    Returns:
        [B, N, T, D] in the query's dtype; softmax and sums in float32 (float64 for float64 input).
    """
    attended: Tensor = _ChainAttention.apply(  # type: ignore[no-untyped-call]
        query, segment_ids, scale, len(keys), *keys, *values
    )
    return attended


def _statistics(tensor: Tensor) -> torch.dtype:
    """The dtype of softmax and sums."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _grouped(heads: Tensor, groups: int) -> Tensor:
    """[B, K * groups, T, ...] -> [B, K, groups, T, ...]; query heads that share a key-value head lie together."""
    return heads.unflatten(1, (-1, groups))


@dataclass(frozen=True)
class _Slice:
    """Queries start ... stop of every head against depth 1's keys 0 ... stop."""

    rows: slice
    hidden: Tensor  # [B, 1, 1, rows, stop], true where the key must not be seen

    def scores(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        """[B, K, groups, rows, stop] in the statistics' dtype, -inf where hidden."""
        products = query[..., self.rows, :] @ key[:, :, None, : self.rows.stop].mT
        return (products.to(_statistics(query)) * scale).masked_fill_(self.hidden, float("-inf"))


def _slices(query: Tensor, segment_ids: Tensor) -> Iterator[_Slice]:
    """Cut the queries so that a slice's scores fit `SLICE_SCORES`."""
    batch, kv_heads, groups, length, _ = query.shape
    step = max(1, min(length, SLICE_SCORES // (batch * kv_heads * groups * length)))
    position = torch.arange(length, device=query.device)
    for start in range(0, length, step):
        rows = slice(start, min(start + step, length))
        later = position[None, : rows.stop] > position[rows, None]
        foreign = segment_ids[:, rows, None] != segment_ids[:, None, : rows.stop]
        yield _Slice(rows, (later | foreign)[:, None, None])


class _ChainAttention(torch.autograd.Function):
    """Forward keeps the output and the log-sum-exp over *all* keys; backward rebuilds every probability from it."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Tensor, segment_ids: Tensor, scale: float, depths: int, *keys_values: Tensor
    ) -> Tensor:
        keys, values = keys_values[:depths], keys_values[depths:]
        q = _grouped(query, query.shape[1] // keys[0].shape[1])
        output = torch.empty(q.shape, dtype=_statistics(q), device=q.device)
        lse = torch.empty(q.shape[:-1], dtype=output.dtype, device=q.device)
        for part in _slices(q, segment_ids):
            scores = part.scores(q, keys[0], scale)
            lse[..., part.rows] = scores.logsumexp(-1)
            weights = (scores - lse[..., part.rows, None]).exp_().to(values[0].dtype)
            output[..., part.rows, :] = (weights @ values[0][:, :, None, : part.rows.stop]).to(output.dtype)
        # the diagonals: one more key for each deeper depth, joined to what was attended so far
        for key, value in zip(keys[1:], values[1:], strict=True):
            score = (q * key[:, :, None]).sum(-1, dtype=lse.dtype) * scale
            joined = torch.logaddexp(lse, score)
            output *= (lse - joined).exp()[..., None]
            output += (score - joined).exp()[..., None] * value[:, :, None]
            lse = joined
        result = output.to(query.dtype)
        ctx.save_for_backward(query, segment_ids, result, lse, *keys_values)
        ctx.scale, ctx.depths = scale, depths  # type: ignore[attr-defined]
        return result.flatten(1, 2)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, segment_ids, output, lse, *keys_values = ctx.saved_tensors  # type: ignore[attr-defined]
        scale, depths = ctx.scale, ctx.depths  # type: ignore[attr-defined]
        keys, values = keys_values[:depths], keys_values[depths:]
        groups = query.shape[1] // keys[0].shape[1]
        q, grad = _grouped(query, groups), _grouped(grad, groups)
        # d score = p (d p - sum p d p), and sum p d p over all keys is the output times its gradient
        mean = (grad * output).sum(-1, dtype=lse.dtype)
        grad_q = torch.zeros(q.shape, dtype=lse.dtype, device=q.device)
        grad_keys = [torch.zeros(k.shape, dtype=lse.dtype, device=q.device) for k in keys]
        grad_values = [torch.zeros_like(k) for k in grad_keys]
        for part in _slices(q, segment_ids):
            rows, seen = part.rows, slice(0, part.rows.stop)
            weights = (part.scores(q, keys[0], scale) - lse[..., rows, None]).exp_()
            grad_weights = (grad[..., rows, :] @ values[0][:, :, None, seen].mT).to(lse.dtype)
            grad_scores = (weights * (grad_weights - mean[..., rows, None]) * scale).to(q.dtype)
            grad_q[..., rows, :] = (grad_scores @ keys[0][:, :, None, seen]).to(lse.dtype)
            grad_keys[0][:, :, seen] += (grad_scores.mT @ q[..., rows, :]).sum(2, dtype=lse.dtype)
            weights = weights.to(q.dtype)
            grad_values[0][:, :, seen] += (weights.mT @ grad[..., rows, :]).sum(2, dtype=lse.dtype)
        for n in range(1, depths):
            key, value = keys[n][:, :, None], values[n][:, :, None]
            weight = ((q * key).sum(-1, dtype=lse.dtype) * scale - lse).exp()
            grad_score = (weight * ((grad * value).sum(-1, dtype=lse.dtype) - mean) * scale)[..., None]
            grad_q += grad_score * key
            grad_keys[n] = (grad_score * q).sum(2)
            grad_values[n] = (weight[..., None] * grad).sum(2)
        grads = [g.to(t.dtype) for g, t in zip([*grad_keys, *grad_values], keys_values, strict=True)]
        return grad_q.flatten(1, 2).to(query.dtype), None, None, None, *grads
