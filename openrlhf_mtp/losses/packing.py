"""Samples of a padded batch in one row, without the padding: how OpenRLHF packs them, and the way back.

    padded [B, T]   P P a b c      packed [1, P]   a b c d e      sample   0 0 0 1 1
                    d e P P P                                     place    2 3 4 5 6

OpenRLHF (`ds.packing_samples`, which dynamic batches need) runs the policy on the packed row, and takes log-probs back
to the padded batch, where its masks and advantages are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """The places that the tokens of a row come from.

    Attributes:
        shape: (B, T) of the padded batch.
        place: each token's place in the flattened padded batch, ascending [P].
        position: its position within its sample, from 0 [P].
    """

    shape: tuple[int, int]
    place: Tensor
    position: Tensor

    @classmethod
    def of(cls, attention_mask: Tensor) -> Packing:
        """The packing of a padded batch, by its attention mask [B, T]."""
        rows, length = attention_mask.shape
        place = attention_mask.flatten().nonzero().flatten()
        position = (attention_mask.long().cumsum(-1) - 1).flatten()[place]
        return cls((rows, length), place, position)

    @property
    def sample(self) -> Tensor:
        """The row of the padded batch that each token is from [P]."""
        return self.place // self.shape[1]

    def packed(self, padded: Tensor) -> Tensor:
        """Values of the padded batch's positions as a row: [B, T, ...] -> [1, P, ...]."""
        return padded.flatten(0, 1).index_select(0, self.place)[None]

    def padded(self, packed: Tensor) -> Tensor:
        """A row's values in the padded batch, 0 at its padding: [1, P, ...] -> [B, T, ...]."""
        (row,) = packed
        rows, length = self.shape
        empty = torch.zeros(rows * length, *row.shape[1:], dtype=row.dtype, device=row.device)
        return empty.index_put((self.place,), row).view(rows, length, *row.shape[1:])
