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
    """The anchors that count at depth 1 at least, as indices into the flattened batch [B * T].

    Attributes:
        index: the anchor's own position [N].
        target_index: position i + j, whose hidden state gives p_{i+j} [N, k].
        tokens: x_{i+j+1}, what depth j predicts [N, k].
        mask: where the depth counts [N, k]. Uncounted entries repeat depth 1's target and token, so that they hold
            numbers of this very sample and never garbage from beyond its end.
    """

    index: Tensor
    target_index: Tensor
    tokens: Tensor
    mask: Tensor


def find_anchors(input_ids: Tensor, action_mask: Tensor, segment_ids: Tensor, depths: int) -> Anchors:
    """Collect the counted anchors of a batch with their targets; see `anchor_mask` for the arguments."""
    mask = anchor_mask(action_mask, segment_ids, depths).flatten(0, 1)
    index = mask[:, 0].nonzero().flatten()
    mask = mask[index]
    depth = torch.arange(1, depths + 1, device=index.device)
    target_index = index[:, None] + torch.where(mask, depth, 1)
    return Anchors(index, target_index, input_ids.flatten()[target_index + 1], mask)
