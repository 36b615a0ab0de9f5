"""Depth 1's part of a chain's attention through FlashAttention, which torch brings along for CUDA.

FlashAttention attends causally over whole sequences. Anchors at consecutive positions of a segment are one: their
queries, and the segment's keys up to the last of them; its causal mask is aligned to the last query and the last key.
It returns its log-sum-exp, by which `attention` joins the diagonals. Its backward takes output and log-sum-exp from
outside, and given those over *all* keys it computes depth 1's share of the gradients:

    d score = p (d p - sum p d p),    p = exp(score - lse),    sum p d p = output . d output

The operators are private to torch; `torch.nn.attention.varlen` calls them, without a way to pass a joined log-sum-exp.

Shapes: as in `attention`; R runs, L keys of all runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

WIDEST = 256
"""Channels of a head that the kernels take at most; a multiple of 8."""

EXTRA_KEYS = 2
"""Keys of all runs, as a multiple of a batch's positions, beyond which the runs are too many to pay: every other anchor
is a run of its own if half of the anchors are trained."""


@dataclass(frozen=True)
class Runs:
    """Stretches of anchors at consecutive positions of one segment.

    Attributes:
        queries, keys: where each run begins and the last one ends, among the anchors and in `key_index`, int32 [R + 1].
        key_index: the keys that each run sees, in the flattened batch [L].
        longest: most queries and most keys of a run.
    """

    queries: Tensor
    keys: Tensor
    key_index: Tensor
    longest: tuple[int, int]


class Gradients(NamedTuple):
    """The gradients of queries [B, K, A, G, D], and of keys and values at every position [B, K, T, D]."""

    query: Tensor
    key: Tensor
    value: Tensor


def find_runs(first: Tensor, last: Tensor, length: int) -> Runs | None:
    """The runs of a grid's anchors, on the CPU; None where there are too many to pay, or no anchors.

    Args:
        first: first key that each anchor sees [B, A].
        last: the anchor's own position, its last key [B, A].
        length: positions of a row.

    >>> runs = find_runs(torch.tensor([[0, 0, 0, 4]]), torch.tensor([[1, 2, 3, 5]]), 6)
    >>> runs.queries.tolist(), runs.keys.tolist(), runs.key_index.tolist()
    ([0, 3, 4], [0, 4, 6], [0, 1, 2, 3, 4, 5])
    """
    if not last.numel():
        return None
    row = torch.arange(len(last))[:, None] * length
    first, last, row = first.flatten(), last.flatten(), row.expand_as(last).flatten()
    begins = torch.ones(len(last), dtype=torch.bool)
    begins[1:] = (last.diff() != 1) | (first.diff() != 0) | (row.diff() != 0)
    start = begins.nonzero().flatten()
    queries = start.diff(append=torch.tensor([len(last)]))
    seen = last[start + queries - 1] - first[start] + 1
    total = int(seen.sum())
    if total > EXTRA_KEYS * length * (int(row[-1]) // length + 1):
        return None
    key_ends = seen.cumsum(0)
    offset = row[start] + first[start] - (key_ends - seen)
    return Runs(
        queries=torch.cat([start, torch.tensor([len(last)])]).int(),
        keys=torch.cat([torch.zeros(1, dtype=torch.long), key_ends]).int(),
        key_index=offset.repeat_interleave(seen) + torch.arange(total),
        longest=(int(queries.max()), int(seen.max())),
    )


def moved(runs: Runs, device: torch.device) -> Runs:
    """The runs on a device."""
    queries, keys, index = (
        part.to(device, non_blocking=True) for part in (runs.queries, runs.keys, runs.key_index)
    )
    return Runs(queries, keys, index, runs.longest)


def takes(query: Tensor) -> bool:
    """Whether FlashAttention takes queries [..., D] like these here."""
    width = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and width <= WIDEST
        and width % 8 == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
        and not torch.are_deterministic_algorithms_enabled()  # its backward adds in any order
    )


def attend(q: Tensor, key: Tensor, value: Tensor, runs: Runs, scale: float) -> tuple[Tensor, Tensor]:
    """Attention to depth 1's keys: queries [B, K, A, G, D], keys and values [B, K, T, D] -> the result in the queries'
    shape and dtype, and its log-sum-exp in float32 [B, K, A, G]."""
    output, lse, *_ = torch.ops.aten._flash_attention_forward(
        _rows(q),
        *_seen(runs, key, value),
        runs.queries,
        runs.keys,
        *runs.longest,
        0.0,
        True,
        False,
        scale=scale,
    )
    batch, kv_heads, anchors, groups, _ = q.shape
    by_head = lse.view(kv_heads, groups, batch, anchors).permute(2, 0, 3, 1)
    return _grid(output, q.shape), by_head.contiguous()


def gradients(
    q: Tensor,
    key: Tensor,
    value: Tensor,
    grad: Tensor,
    output: Tensor,
    lse: Tensor,
    runs: Runs,
    scale: float,
) -> Gradients:
    """Gradients through the scores of depth 1's keys.

    Args:
        q, key, value: as in `attend`.
        grad: of the output [B, K, A, G, D].
        output, lse: over all keys, the diagonals' included, in the shapes of `attend`.
        runs: of the anchors.
        scale: factor on the scores.
    """
    no_dropout = torch.zeros(2, dtype=torch.uint64, device=q.device)
    grad_q, grad_key, grad_value = torch.ops.aten._flash_attention_backward(
        _rows(grad),
        _rows(q),
        *_seen(runs, key, value),
        _rows(output),
        lse.permute(1, 3, 0, 2).flatten(0, 1).flatten(1).contiguous(),
        runs.queries,
        runs.keys,
        *runs.longest,
        0.0,
        True,
        no_dropout,
        q.new_empty(0),
        scale=scale,
    )
    everywhere = [_everywhere(part, runs, key.shape) for part in (grad_key, grad_value)]
    return Gradients(_grid(grad_q, q.shape).float(), *everywhere)


def _rows(heads: Tensor) -> Tensor:
    """[B, K, A, G, D] -> [B A, K G, D]."""
    return heads.transpose(1, 2).flatten(2, 3).flatten(0, 1).contiguous()


def _grid(rows: Tensor, shape: torch.Size) -> Tensor:
    """[B A, K G, D] -> [B, K, A, G, D]."""
    batch, kv_heads, anchors, groups, width = shape
    return rows.view(batch, anchors, kv_heads, groups, width).transpose(1, 2).contiguous()


def _seen(runs: Runs, *of_positions: Tensor) -> list[Tensor]:
    """The keys or values that the runs see: [B, K, T, D] -> [L, K, D]."""
    return [part.transpose(1, 2).flatten(0, 1).index_select(0, runs.key_index) for part in of_positions]


def _everywhere(of_keys: Tensor, runs: Runs, shape: torch.Size) -> Tensor:
    """Gradients of the runs' keys, added up where they belong: [L, K, D] -> [B, K, T, D] in float32."""
    batch, kv_heads, length, width = shape
    total = of_keys.new_zeros(batch * length, kv_heads, width, dtype=torch.float32)
    total.index_add_(0, runs.key_index, of_keys.float())
    return total.view(batch, length, kv_heads, width).transpose(1, 2).contiguous()
