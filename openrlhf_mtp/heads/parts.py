"""A grid of rows and positions in parts of bounded size, and results of parts put together again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Part = tuple[slice, slice]
"""Rows, and positions or anchors of them."""


def parts(shape: Sequence[int], size: int) -> list[list[Part]]:
    """Cut a grid [rows, length] into parts of at most `size` places: several whole rows, or a stretch of one row.

    Returns:
        The parts of each group of rows.

    >>> parts((2, 5), 3)[0]
    [(slice(0, 1, None), slice(0, 3, None)), (slice(0, 1, None), slice(3, 5, None))]
    >>> parts((3, 2), 4)
    [[(slice(0, 2, None), slice(0, 2, None))], [(slice(2, 3, None), slice(0, 2, None))]]
    """
    rows, length = shape
    together = max(1, size // max(1, length))
    return [
        [
            (slice(row, min(row + together, rows)), slice(start, min(start + size, length)))
            for start in range(0, max(1, length), size)
        ]
        for row in range(0, rows, together)
    ]


def joined(of_parts: Sequence[Sequence[Tensor]], dim: int) -> Tensor:
    """Put the results of `parts` together; `dim` is that of the positions, rows are the first."""
    groups = [
        stretches[0] if len(stretches) == 1 else torch.cat(list(stretches), dim) for stretches in of_parts
    ]
    return groups[0] if len(groups) == 1 else torch.cat(groups)
