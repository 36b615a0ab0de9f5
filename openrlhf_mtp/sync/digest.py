"""Exact digests of tensors: equal bits give equal digests, and parts of a tensor add up to the whole.

A digest is the integer sum, modulo 2^64, of every element's bit pattern times a weight that depends on the
element's row and column in the *full* tensor:

    D(W) = sum_{r,c} A(r) * bits(W[r, c]) * B(c)   (mod 2^64),   A, B odd pseudo-random int64

Sums of integers do not depend on the order of additions, so the digest is exact on any device; tensor-parallel
shards, the q/k/v parts of a fused layer and single columns add up as long as each knows its offsets; zero padding
adds nothing. The weights make swapped elements, swapped shards and errors that cancel in a plain sum visible.

Values whose exponent bits are all zero (+0, -0 and subnormals) count as 0: reading a weight back through a matrix
product turns -0 into +0, and some CPU kernels flush subnormals.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

WORD_TILE = 1 << 16  # 8-byte words that a checksum sees as one row
CHUNK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 22}
"""Elements widened to int64 at a time: 2 MiB stay in a processor's cache; 32 MiB keep a GPU busy, and it has room for
them."""
KEPT_WEIGHTS = 1 << 18
"""Positions whose weights are kept: 2 MiB for rows and for columns; more are computed each time."""
_ROW_SEED, _COLUMN_SEED = 0x5DEECE66D, 0x2545F491
_BITS = {  # dtype -> (integer view, mask of the exponent bits)
    torch.float32: (torch.int32, 0x7F800000),
    torch.bfloat16: (torch.int16, 0x7F80),
    torch.float16: (torch.int16, 0x7C00),
}


def position_weights(indices: Tensor, seed: int) -> Tensor:
    """Odd pseudo-random int64 weights of int64 positions (SplitMix64's finalizer), any shape."""

    def shift(x: Tensor, n: int) -> Tensor:  # logical shift: torch's >> keeps the sign
        return (x >> n) & ((1 << (64 - n)) - 1)

    def signed(x: int) -> int:
        return x - (1 << 64) if x >= 1 << 63 else x

    z = (indices + seed) * signed(0x9E3779B97F4A7C15)
    z = (z ^ shift(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shift(z, 27)) * signed(0x94D049BB133111EB)
    return (z ^ shift(z, 31)) | 1


@lru_cache(maxsize=8)
def _first_weights(seed: int, device: torch.device) -> Tensor:
    """The weights of the first `KEPT_WEIGHTS` positions."""
    with torch.inference_mode(False):  # kept for calls in either mode
        return position_weights(torch.arange(KEPT_WEIGHTS, device=device), seed)


def _weights(start: int, count: int, seed: int, device: torch.device) -> Tensor:
    """The weights of `count` positions from `start` on."""
    if start + count <= KEPT_WEIGHTS:
        return _first_weights(seed, device)[start : start + count]
    return position_weights(torch.arange(start, start + count, device=device), seed)


def canonical_bits(values: Tensor) -> Tensor:
    """Return bit patterns as int64, with zeros of either sign and subnormals as 0.

    Raises:
        ValueError: a dtype whose bits this cannot read.
    """
    if values.dtype not in _BITS:
        raise ValueError(f"cannot digest {values.dtype}; supported: {', '.join(map(str, _BITS))}")
    integer, exponent = _BITS[values.dtype]
    bits = values.contiguous().view(integer)
    # all ones where the exponent is not zero; a mask of bools is twenty times slower on a CPU
    normal = -(bits & exponent) >> (8 * bits.element_size() - 1)
    return (bits & normal).to(torch.int64)


def chunk_elements(device: torch.device) -> int:
    """The elements that a digest or checksum works on at a time."""
    return CHUNK_ELEMENTS["cpu" if device.type == "cpu" else "cuda"]


def digest(tensor: Tensor, *, row_offset: int = 0, columns: Tensor | None = None) -> int:
    """`digest_sum` as an integer in [0, 2^64); put parts together with `add`. Waits for the tensor's device."""
    return integers([digest_sum(tensor, row_offset=row_offset, columns=columns)])[0]


def integers(sums: Sequence[Tensor]) -> list[int]:
    """Digests in [0, 2^64) of sums that lie on one device, with one wait for it."""
    return [value % (1 << 64) for value in torch.stack(list(sums)).tolist()] if sums else []


def digest_sum(tensor: Tensor, *, row_offset: int = 0, columns: Tensor | None = None) -> Tensor:
    """Digest a tensor, seen as [rows, columns] (dim 0, everything else; a vector has one column).

    Args:
        tensor: all of a tensor, or a part of it.
        row_offset: where row 0 lies in the full tensor.
        columns: [n] int64, the places of this part's columns in the full tensor; None for 0..n-1.

    Returns:
        An int64 scalar on the tensor's device, modulo 2^64. Sums of parts add up.

    Raises:
        ValueError: a dtype whose bits this cannot read.
    """
    if tensor.numel() == 0:
        return torch.zeros((), dtype=torch.int64, device=tensor.device)
    rows = tensor.shape[0] if tensor.dim() else 1
    matrix = tensor.detach().reshape(rows, -1)
    device = matrix.device
    assert columns is None or columns.shape == (matrix.shape[1],), (columns, matrix.shape)
    column_weights = (
        _weights(0, matrix.shape[1], _COLUMN_SEED, device)
        if columns is None
        else position_weights(columns.to(device), _COLUMN_SEED)
    )
    row_weights = _weights(row_offset, rows, _ROW_SEED, device)
    step = max(1, chunk_elements(device) // matrix.shape[1])
    total = torch.zeros((), dtype=torch.int64, device=device)
    for start in range(0, rows, step):
        bits = canonical_bits(matrix[start : start + step])
        total += (_row_sums(bits, column_weights) * row_weights[start : start + step]).sum()
    return total


def _row_sums(rows: Tensor, weights: Tensor) -> Tensor:
    """Sum [rows, columns] int64 times [columns] over the columns, modulo 2^64.

    A CPU multiplies matrices of integers, four times faster than product by product; a GPU does not.
    """
    return torch.mv(rows, weights) if rows.device.type == "cpu" else (rows * weights).sum(1)


def add(*parts: int) -> int:
    """Return the digest of a whole from the digests of its disjoint parts.

    >>> add(2**64 - 1, 2)
    1
    """
    return sum(parts) % (1 << 64)


def checksum(words: Tensor) -> Tensor:
    """Sum raw 8-byte words [n] int64 to an int64 scalar tensor, for a tensor in transit: every bit counts."""
    assert (words.dtype, words.dim()) == (torch.int64, 1), (words.dtype, words.shape)
    full = words.numel() // WORD_TILE * WORD_TILE
    tile = _weights(0, WORD_TILE, _COLUMN_SEED, words.device)
    rows = words[:full].view(-1, WORD_TILE)
    row_weights = _weights(0, rows.shape[0] + 1, _ROW_SEED, words.device)
    total = ((words[full:] * tile[: words.numel() - full]).sum() * row_weights[-1]).reshape(())
    step = max(1, chunk_elements(words.device) // WORD_TILE)
    for start in range(0, rows.shape[0], step):
        some = rows[start : start + step]
        total = total + (_row_sums(some, tile) * row_weights[start : start + len(some)]).sum()
    return total


@lru_cache(maxsize=64)  # a round asks for the few widths of a model, tensor by tensor
def sampled_columns(width: int, count: int | None, seed: int) -> Tensor | None:
    """Choose the column numbers [count], sorted, to compare in one round; None for all (`count` None or >= width).

    Both sides call this with the same arguments and so pick the same columns.
    """
    if count is None or count >= width:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(width, generator=generator)[:count].sort().values
