import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.sync.digest import WORD_TILE, add, checksum, digest, position_weights, sampled_columns

DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@st.composite
def matrices(draw: st.DrawFn) -> torch.Tensor:
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.randn(rows, columns, generator=generator).to(draw(DTYPES))


def reference(matrix: torch.Tensor) -> int:
    """The docstring's formula in plain Python integers."""
    integer = torch.int32 if matrix.dtype == torch.float32 else torch.int16
    bits = matrix.contiguous().view(integer).tolist()
    seeds = (0x5DEECE66D, 0x2545F491)
    rows, columns = (
        position_weights(torch.arange(n), seed).tolist() for n, seed in zip(matrix.shape, seeds, strict=True)
    )
    return sum(rows[r] * b * columns[c] for r, line in enumerate(bits) for c, b in enumerate(line)) % 2**64


@given(matrices())
def test_the_digest_is_the_weighted_sum_of_bit_patterns(matrix: torch.Tensor):
    assert digest(matrix) == reference(matrix)


@given(matrices(), st.integers(0, 12), st.integers(0, 12))
def test_parts_add_up_to_the_whole(matrix: torch.Tensor, row: int, column: int):
    numbers = torch.arange(matrix.shape[1])
    corners = [
        digest(matrix[rows, columns], row_offset=rows.start, columns=numbers[columns])
        for rows in (slice(0, row), slice(min(row, len(matrix)), None))
        for columns in (slice(0, column), slice(min(column, matrix.shape[1]), None))
    ]
    assert add(*corners) == digest(matrix)


@given(matrices())
def test_padding_with_zero_rows_adds_nothing(matrix: torch.Tensor):
    assert digest(torch.cat([matrix, torch.zeros_like(matrix)])) == digest(matrix)


@given(matrices(), st.data())
def test_one_flipped_bit_changes_it(matrix: torch.Tensor, data: st.DataObject):
    integer, width = (torch.int32, 31) if matrix.dtype == torch.float32 else (torch.int16, 15)
    other = matrix.clone()
    flat = other.view(integer).view(-1)
    place = data.draw(st.integers(0, flat.numel() - 1))
    flat[place] ^= 1 << data.draw(st.integers(0, width - 1))
    assert digest(other) != digest(matrix)


def test_swapped_and_compensating_errors_are_seen():
    matrix = torch.arange(1.0, 13.0).view(3, 4)
    swapped_rows, transposed = matrix[[1, 0, 2]], matrix.t().reshape(3, 4)
    compensating = matrix.clone()
    bits = compensating.view(torch.int32)
    bits[0, 0] += 1
    bits[2, 3] -= 1
    assert len({digest(m) for m in (matrix, swapped_rows, transposed, compensating)}) == 4


def test_large_tensors_are_summed_in_chunks_without_a_difference():
    matrix = torch.randn(1500, 400, generator=torch.Generator().manual_seed(0))
    assert digest(matrix) == add(digest(matrix[:7]), digest(matrix[7:], row_offset=7))


def test_negative_zero_and_subnormals_count_as_zero():
    """A product with the identity turns -0 into +0, and some CPU kernels flush subnormals."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tiny = torch.tensor([0.0, -0.0, torch.finfo(dtype).smallest_normal / 2], dtype=dtype)
        assert digest(tiny) == 0
        assert digest(torch.tensor([torch.finfo(dtype).smallest_normal], dtype=dtype)) != 0


def test_an_integer_tensor_is_refused():
    with pytest.raises(ValueError, match=r"cannot digest torch\.int64"):
        digest(torch.arange(3))


@given(st.integers(1, 2 * WORD_TILE + 3), st.data())
def test_the_checksum_sees_any_flipped_bit(length: int, data: st.DataObject):
    words = torch.randint(-(2**62), 2**62, (length,), generator=torch.Generator().manual_seed(length))
    before = checksum(words)
    place, bit = data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, 62))
    words[place] ^= 1 << bit
    assert checksum(words) != before


def test_the_checksum_sees_swapped_words_also_across_tiles():
    words = torch.arange(3 * WORD_TILE)
    swapped = words.clone()
    swapped[[5, WORD_TILE + 5]] = swapped[[WORD_TILE + 5, 5]]
    assert checksum(words) != checksum(swapped)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 1000))
def test_both_sides_sample_the_same_distinct_columns(width: int, count: int, seed: int):
    columns = sampled_columns(width, count, seed)
    if count >= width:
        assert columns is None
        return
    assert columns is not None
    assert columns.tolist() == sorted(set(columns.tolist()))
    assert len(columns) == count
    assert 0 <= columns[0] <= columns[-1] < width
    again = sampled_columns(width, count, seed)
    assert again is not None
    assert again.tolist() == columns.tolist()
