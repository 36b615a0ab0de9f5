"""Which token, which hidden state and which mask belong to depth j at anchor i. Nothing else in the project shifts.

An anchor i has the hidden state h_i and the next token x_{i+1}. Depth j (counted from 1; column j - 1) reads
x_{i+j}, predicts x_{i+j+1} and is compared with the policy's distribution p_{i+j}, which comes from h_{i+j}.

Five tokens, three depths; `P` is a prompt token, `A` an action token, `E` the end-of-sequence action:

    position i      0    1    2    3    4
    token           P    A    A    A    E
    anchor 0, j=1        reads x_1, predicts x_2, compared with p_1      counts: x_1, x_2 are actions
    anchor 0, j=2        reads x_2, predicts x_3, compared with p_2      counts
    anchor 0, j=3        reads x_3, predicts x_4, compared with p_3      counts: E may be the last
    anchor 1, j=3        predicts x_5                                    does not count: past the end

An anchor counts at depth j only if x_{i+1} ... x_{i+j+1} are action tokens of its own segment: the engine drafts
after the first sampled token, and what the policy predicts after E is meaningless.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def action_positions(action_mask: Tensor) -> Tensor:
    """OpenRLHF's action mask [B, T-1], whose column t-1 speaks of token t, as a mask of positions [B, T] (bool)."""
    return torch.nn.functional.pad(action_mask.bool(), (1, 0), value=False)


def _ahead(values: Tensor, offset: int) -> Tensor:
    """values[:, t + offset] at column t, zero (false) past the end: [B, T] -> [B, T]."""
    kept = values[:, offset:]
    return torch.nn.functional.pad(kept, (0, values.shape[1] - kept.shape[1]))


def next_tokens(input_ids: Tensor, depths: int) -> Tensor:
    """The token each depth reads, x_{i+j}: [B, T] -> [B, T, k]; token 0 past the end, where no depth counts.

    >>> next_tokens(torch.tensor([[5, 6, 7]]), 2).tolist()
    [[[6, 7], [7, 0], [0, 0]]]
    """
    return torch.stack([_ahead(input_ids, j) for j in range(1, depths + 1)], dim=-1)


def anchor_mask(action_mask: Tensor, segment_ids: Tensor, depths: int) -> Tensor:
    """Where each depth counts: x_{i+1} ... x_{i+j+1} are action tokens of the anchor's segment.

    Args:
        action_mask: true where the token at that position was sampled by the policy [B, T].
        segment_ids: equal and nonzero within a sample, 0 for padding [B, T].
        depths: number of depths k.

    Returns:
        Bool [B, T, k]. Column k - 1 is the fixed horizon: all depths inside.
    """
    action_mask = action_mask.bool()

    def is_own_action(offset: int) -> Tensor:
        return _ahead(action_mask, offset) & (_ahead(segment_ids, offset) == segment_ids) & (segment_ids != 0)

    inside = is_own_action(1)
    columns = []
    for j in range(1, depths + 1):
        inside = inside & is_own_action(j + 1)
        columns.append(inside)
    return torch.stack(columns, dim=-1)


@dataclass(frozen=True)
class Anchors:
    """The anchors that count at depth 1 at least, or a random share of them. B rows of T tokens, N anchors.

    Attributes:
        grid: positions of each row's anchors, ascending, padded by repeating one [B, A].
        present: false for that padding [B, A].
        index: the anchors in the order of `grid`, as indices into the flattened batch [N].
        target_index: position i + j, whose hidden state gives p_{i+j}, in the flattened batch [N, k].
        tokens: x_{i+j+1}, what depth j predicts [N, k].
        mask: where the depth counts [N, k]. Uncounted entries repeat depth 1's target and token, so that they hold
            numbers of this very sample and never garbage from beyond its end.
        share: probability with which each anchor was chosen.
    """

    grid: Tensor
    present: Tensor
    index: Tensor
    target_index: Tensor
    tokens: Tensor
    mask: Tensor
    share: float = 1.0

    @property
    def row(self) -> Tensor:
        """The row of the batch each anchor is in [N]."""
        return self.present.nonzero()[:, 0]

    def flat(self, per_anchor: Tensor) -> Tensor:
        """What was computed on the grid [B, A, ...], anchor by anchor [N, ...]."""
        return per_anchor[self.present]


def find_anchors(
    input_ids: Tensor,
    action_mask: Tensor,
    segment_ids: Tensor,
    depths: int,
    *,
    share: float = 1.0,
    draw: int = 0,
) -> Anchors:
    """Collect the counted anchors of a batch with their targets.

    Args:
        input_ids: tokens [B, T].
        action_mask: true where the token at that position was sampled by the policy [B, T].
        segment_ids: equal and nonzero within a sample, 0 for padding [B, T].
        depths: number of depths k.
        share: take this share of them only, see `chosen`.
        draw: number of the draw; another one gives another choice.
    """
    length = input_ids.shape[1]
    mask = anchor_mask(action_mask, segment_ids, depths)
    taken = mask[..., 0]
    if share < 1.0:
        taken = taken & chosen(input_ids, segment_ids, share, draw)
    count = taken.sum(1)
    grid = (~taken).int().argsort(dim=1, stable=True)[:, : int(count.max()) if len(count) else 0]
    present = torch.arange(grid.shape[1], device=grid.device) < count[:, None]
    grid = torch.where(present, grid, grid[:, :1])
    first = torch.arange(len(grid), device=grid.device)[:, None] * length
    index = (grid + first)[present]
    mask = mask.flatten(0, 1)[index]
    depth = torch.arange(1, depths + 1, device=index.device)
    target_index = index[:, None] + torch.where(mask, depth, 1)
    tokens = input_ids.flatten()[target_index + 1]
    return Anchors(grid, present, index, target_index, tokens, mask, share)


GOLDEN = 0.6180339887498949
"""Fractional part of the golden ratio: multiples of it fill [0, 1) most evenly."""


def chosen(input_ids: Tensor, segment_ids: Tensor, share: float, draw: int) -> Tensor:
    """Choose a share of the positions, each with probability `share` over the draws: bool [B, T].

    Position i of a sample is taken when frac(phase + i * golden ratio) < share, with a phase that is a hash of the
    sample's tokens and the number of the draw. So the choice is reproducible, the same however the samples are split
    over micro-batches and ranks or padded, and spread evenly, which an independent coin for each position is not.
    """
    inside = segment_ids != 0
    position = inside.long().cumsum(1) - 1
    terms = _mixed((input_ids + 1) * 0x9E3779B97F4A7C1 + position)
    digest = terms.where(inside, 0).sum(1)
    digest = _mixed(digest + _mixed(torch.full_like(digest, draw + 1)))
    phase = (digest & (2**52 - 1)).double() / 2**52
    return (phase[:, None] + position * GOLDEN) % 1.0 < share


def _mixed(values: Tensor) -> Tensor:
    """Scramble 64-bit integers (the finalizer of splitmix64; Steele et al., OOPSLA 2014), modulo 2^64."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        values = (values ^ ((values >> shift) & (2 ** (64 - shift) - 1))) * factor
    return values ^ ((values >> 31) & (2**33 - 1))
