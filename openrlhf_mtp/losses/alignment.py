"""The token, the hidden state and the mask of depth j at anchor i.

No other module of `losses` and `training` shifts along the tokens (`tests/unit/losses/test_one_place_shifts.py`).

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

from openrlhf_mtp.losses.anchor_sampling import sampled_positions
from openrlhf_mtp.losses.packing import Packing


def action_positions(action_mask: Tensor) -> Tensor:
    """Turn OpenRLHF's action mask [B, T - 1], whose column t - 1 is about token t, into a mask of positions [B, T]."""
    return torch.nn.functional.pad(action_mask.bool(), (1, 0), value=False)


def _ahead(values: Tensor, offset: int) -> Tensor:
    """values[:, t + offset] at column t, zero (false) past the end: [B, T] -> [B, T]."""
    kept = values[:, offset:]
    return torch.nn.functional.pad(kept, (0, values.shape[1] - kept.shape[1]))


def spans(mask: Tensor) -> tuple[tuple[int, int], ...]:
    """The runs of true values of a mask [T] as (start, end).

    >>> spans(torch.tensor([False, True, True, False, True]))
    ((1, 3), (4, 5))
    """
    edges = torch.diff(torch.nn.functional.pad(mask.int(), (1, 1)))
    starts, ends = (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist()
    return tuple(zip(starts, ends, strict=True))


def next_tokens(input_ids: Tensor, depths: int) -> Tensor:
    """The token each depth reads, x_{i+j}: [B, T] -> [B, T, k]; token 0 past the end, where no depth counts.

    >>> next_tokens(torch.tensor([[5, 6, 7]]), 2).tolist()
    [[[6, 7], [7, 0], [0, 0]]]
    """
    return torch.stack([_ahead(input_ids, j) for j in range(1, depths + 1)], dim=-1)


def anchor_mask(action_mask: Tensor, segment_ids: Tensor, depths: int) -> Tensor:
    """The mask of depths that count: x_{i+1} ... x_{i+j+1} are action tokens of the anchor's segment.

    Args:
        action_mask: true where the token at that position was sampled by the policy [B, T].
        segment_ids: equal and nonzero within a sample, 0 for padding [B, T].
        depths: number of depths k.

    Returns:
        Bool [B, T, k]. Column k - 1 is true where all depths are inside.
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
    """Anchors with at least depth 1 inside the response, optionally subsampled. B rows of T tokens, N anchors.

    A packed batch is one row of several samples.

    Attributes:
        grid: positions of each row's anchors, ascending, padded by repeating one [B, A].
        present: false for that padding [B, A].
        index: the anchors in the order of `grid`, as indices into the flattened batch [N].
        row: the sample that each anchor is in, which is its row in OpenRLHF's layout [N].
        reads: x_{i+j}, what each depth reads: depth 1 at all positions [B, T], which leaves the keys that deeper
            depths attend to, and depths 2 ... k on the grid [B, A] each.
        target_index: position i + j, whose hidden state gives p_{i+j}, in the flattened batch [N, k].
        tokens: x_{i+j+1}, what depth j predicts [N, k].
        columns: shape of OpenRLHF's layout of action tokens, (B, T - 1) of the padded batch: column t - 1 is about
            token t.
        column: column i + j, which is that of the predicted token, in that layout flattened [N, k].
        mask: where the depth counts [N, k]. Uncounted entries repeat depth 1's target and token, so that they hold
            numbers of this very sample and never garbage from beyond its end.
        fraction: probability with which each anchor was sampled.
    """

    grid: Tensor
    present: Tensor
    index: Tensor
    row: Tensor
    reads: tuple[Tensor, ...]
    target_index: Tensor
    tokens: Tensor
    columns: tuple[int, int]
    column: Tensor
    mask: Tensor
    fraction: float = 1.0

    @property
    def place(self) -> Tensor:
        """The anchors' places on the flattened grid [N]."""
        return self.present.flatten().nonzero()[:, 0]

    def flat(self, per_anchor: Tensor) -> Tensor:
        """Values on the grid [B, A, ...], anchor by anchor [N, ...]; a view of a single row, which has no padding."""
        return per_anchor[0] if len(per_anchor) == 1 else per_anchor[self.present]


def find_anchors(
    input_ids: Tensor,
    action_mask: Tensor,
    segment_ids: Tensor,
    depths: int,
    *,
    fraction: float = 1.0,
    seed: int = 0,
    packing: Packing | None = None,
) -> Anchors:
    """Collect the counted anchors of a batch with what their depths read, predict and are compared with.

    Args:
        input_ids: tokens [B, T].
        action_mask: true where the token at that position was sampled by the policy [B, T].
        segment_ids: equal and nonzero within a sample, 0 for padding [B, T].
        depths: number of depths k.
        fraction: take this share of them, see `sampled_positions`.
        seed: of the choice; another one gives another choice.
        packing: where the tokens of a packed row come from; None: every row is a sample, padded.
    """
    mask = anchor_mask(action_mask, segment_ids, depths)
    taken = mask[..., 0]
    if fraction < 1.0:
        taken = taken & sampled_positions(input_ids, segment_ids, fraction, seed)
    grid, present = _grid(taken)
    row = present.nonzero()[:, 0]
    index = grid[present] + row * input_ids.shape[1]
    mask = mask.flatten(0, 1)[index]
    depth = torch.arange(1, depths + 1, device=index.device)
    target_index = index[:, None] + torch.where(mask, depth, 1)
    columns, sample, column = _in_openrlhfs_layout(input_ids, packing, index, target_index)
    first, *deeper = next_tokens(input_ids, depths).unbind(-1)
    return Anchors(
        grid=grid,
        present=present,
        index=index,
        row=sample,
        reads=(first, *(tokens.gather(1, grid) for tokens in deeper)),
        target_index=target_index,
        tokens=input_ids.flatten()[target_index + 1],
        columns=columns,
        column=column,
        mask=mask,
        fraction=fraction,
    )


def _in_openrlhfs_layout(
    input_ids: Tensor, packing: Packing | None, index: Tensor, target_index: Tensor
) -> tuple[tuple[int, int], Tensor, Tensor]:
    """`Anchors.columns`, `Anchors.row` and `Anchors.column` of anchors [N] and their targets [N, k]."""
    rows, length = input_ids.shape
    if packing is not None:
        rows, length = packing.shape
        index, target_index = packing.place[index], packing.place[target_index]
    sample = index // length
    # every row before has a column less than it has positions
    return (rows, length - 1), sample, target_index - sample[:, None]


def _grid(taken: Tensor) -> tuple[Tensor, Tensor]:
    """`Anchors.grid` and `Anchors.present` of the positions that are taken [B, T]."""
    count = taken.sum(1)
    grid = (~taken).int().argsort(dim=1, stable=True)[:, : int(count.max()) if len(count) else 0]
    present = torch.arange(grid.shape[1], device=grid.device) < count[:, None]
    return torch.where(present, grid, grid[:, :1]), present
