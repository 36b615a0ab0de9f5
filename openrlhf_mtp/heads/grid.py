"""The anchors of the chains: every position of a batch, or some of them.

Only depth 1 runs at all positions, for its keys; what follows runs at the anchors. The depth-1 keys that an anchor sees
are decided here: those of its own segment, up to its own position.

Shapes: B rows, T positions, A anchors a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from openrlhf_mtp.heads.flash import Runs, find_runs, moved

CAUSAL_SLICES = 8
"""Slices of a row's anchors, if it is long: each stops at its last anchor's key, so an eighth of the work is waste."""

SHORTEST_SLICE = 128
"""Anchors below which cutting for causality costs more in calls than it saves in work."""


@dataclass(frozen=True)
class Slice:
    """Some anchors of some rows, and the stretch of keys that holds all they see."""

    rows: slice
    anchors: slice
    keys: slice


class AnchorGrid:
    """The anchors of a batch.

    Attributes:
        position: the position of each anchor [B, A].
        segment: the segment it is in [B, A].
        segment_ids: the segment of every position [B, T]. Padding counts as a segment, so every anchor sees a key.
    """

    def __init__(self, segment_ids: Tensor, index: Tensor | None = None, seen: Tensor | None = None) -> None:
        """Anchors at `index` [B, A], in any order and repeated at will (fastest when ascending); None: everywhere.

        `seen` has the first and the last key of each anchor on the host [2, B, A], where they are known.
        """
        rows, length = segment_ids.shape
        every = torch.arange(length, device=segment_ids.device).expand(rows, length)
        self._flat: Tensor | None = None
        if index is not None:
            assert index.shape[0] == rows, f"anchors of {index.shape[0]} rows for a batch of {rows}"
            self._flat = _flat(index, length)
        self.segment_ids = segment_ids
        self.position = every if index is None else index
        self.segment = self.at(segment_ids)
        # first and last key of each anchor, brought to the host once for all slices of all depths
        if seen is None:
            seen = torch.stack([self.at(_first_of_segment(segment_ids)), self.position]).cpu()
        self._seen = seen

    def at(self, per_position: Tensor) -> Tensor:
        """Select the anchors: [B, T, ...] -> [B, A, ...]."""
        if self._flat is None:
            return per_position
        return per_position.flatten(0, 1).index_select(0, self._flat).unflatten(0, self.position.shape)

    def part(self, rows: slice, anchors: slice) -> AnchorGrid:
        """The grid of some anchors of some rows; nothing is computed again."""
        seen = self._seen[:, rows, anchors]
        return AnchorGrid(self.segment_ids[rows], self.position[rows, anchors], seen)

    @cached_property
    def runs(self) -> Runs | None:
        """The anchors as FlashAttention takes them; None where they are too scattered."""
        runs = find_runs(self._seen[0], self._seen[1], self.segment_ids.shape[1])
        return None if runs is None else moved(runs, self.position.device)

    def slices(self, heads: int, scores: int) -> Iterator[Slice]:
        """Cut the anchors so that a slice has at most `scores` pairs of anchor and key over all heads, or one anchor
        if that alone is more."""
        (rows, anchors), length = self.position.shape, self.segment_ids.shape[1]
        causal = max(SHORTEST_SLICE, -(-anchors // CAUSAL_SLICES))
        step = max(1, min(anchors, causal, scores // (heads * length)))
        together = max(1, scores // (heads * length * step))
        for row in range(0, rows, together):
            for start in range(0, anchors, step):
                first, last = self._seen[:, row : row + together, start : start + step]
                keys = slice(int(first.min()), int(last.max()) + 1)
                yield Slice(slice(row, row + together), slice(start, min(start + step, anchors)), keys)

    def hidden(self, part: Slice) -> Tensor:
        """True where the anchor must not see the key: [rows, anchors, keys]."""
        key = torch.arange(part.keys.start, part.keys.stop, device=self.position.device)
        later = key > self.position[part.rows, part.anchors, None]
        segment = self.segment_ids[part.rows, None, part.keys]
        return later | (segment != self.segment[part.rows, part.anchors, None])


def _flat(index: Tensor, length: int) -> Tensor:
    """Positions in rows of `length` [B, A], as positions in the flattened batch [B A]."""
    return (index + torch.arange(len(index), device=index.device)[:, None] * length).flatten()


def _first_of_segment(segment_ids: Tensor) -> Tensor:
    """The first position in the row with the same id: [B, T] -> [B, T].

    >>> _first_of_segment(torch.tensor([[0, 7, 7, 3, 3, 0]])).tolist()
    [[0, 1, 1, 3, 3, 0]]
    """
    ids, order = segment_ids.sort(dim=1, stable=True)
    rank = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    starts = torch.nn.functional.pad(ids[:, 1:] != ids[:, :-1], (1, 0), value=True)
    first = order.gather(1, rank.where(starts, 0).cummax(1).values)
    return torch.empty_like(order).scatter_(1, order, first)
