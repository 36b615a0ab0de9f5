"""The chain attention that is used against the one that is obviously right."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from openrlhf_mtp.heads import attention
from openrlhf_mtp.heads.attention import chain_attention
from openrlhf_mtp.heads.grid import AnchorGrid
from tests.unit.heads.attention_reference import chain_attention_reference

SCALE = 0.4
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def chain(
    seed, depths, *, batch=2, kv_heads=2, groups=2, length=9, width=4, anchors=None, dtype=torch.float32
):
    """Query, keys, values and grid of a chain at its last depth; every position an anchor when `anchors` is None."""
    generator = torch.Generator().manual_seed(seed)

    def normal(heads, length):
        return torch.randn(batch, heads, length, width, generator=generator, dtype=dtype).requires_grad_()

    boundaries = torch.rand(batch, length, generator=generator) < 0.3
    segment_ids = boundaries.long().cumsum(-1)  # the first segment is padding
    index = None
    if anchors is not None:
        index = torch.randint(length, (batch, anchors), generator=generator).sort().values
    lengths = [length] + [length if anchors is None else anchors] * (depths - 1)
    query = normal(kv_heads * groups, length if anchors is None else anchors)
    keys, values = [normal(kv_heads, n) for n in lengths], [normal(kv_heads, n) for n in lengths]
    return query, keys, values, AnchorGrid(segment_ids, index)


def output_and_gradients(function, query, keys, values, grid):
    output = function(query, keys, values, grid, SCALE)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad(output, [query, *keys, *values], weights)]


@settings(max_examples=80)
@given(
    seed=st.integers(0, 1000),
    depths=st.integers(1, 4),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    length=st.integers(1, 10),
    anchors=st.none() | st.integers(0, 12),
    anchors_a_slice=st.integers(1, 10),
)
def test_it_equals_the_reference_with_its_gradients(
    seed, depths, kv_heads, groups, length, anchors, anchors_a_slice
):
    sizes = {"kv_heads": kv_heads, "groups": groups, "length": length, "anchors": anchors}
    for dtype, tolerance in TOLERANCE.items():
        inputs = chain(seed, depths, **sizes, dtype=dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(attention.SLICE_SCORES, "cpu", kv_heads * groups * length * anchors_a_slice)
            used = output_and_gradients(chain_attention, *inputs)
        for got, expected in zip(used, output_and_gradients(chain_attention_reference, *inputs), strict=True):
            torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("depths", [1, 3])
def test_a_subset_of_anchors_equals_those_anchors_among_all(depths):
    query, keys, values, everywhere = chain(3, depths, dtype=torch.float64)
    index = torch.tensor([[0, 4, 5, 8], [2, 3, 3, 3]])
    grid = AnchorGrid(everywhere.segment_ids, index)

    def picked(tensor):
        return grid.at(tensor.transpose(1, 2)).transpose(1, 2)

    inputs = [query, *keys, *values]
    weights = torch.linspace(-1, 1, 2 * 4 * 4 * 4, dtype=torch.float64).view(2, 4, 4, 4)
    among_all = picked(chain_attention(query, keys, values, everywhere, SCALE))
    alone = chain_attention(
        picked(query),
        [keys[0], *map(picked, keys[1:])],
        [values[0], *map(picked, values[1:])],
        grid,
        SCALE,
    )
    torch.testing.assert_close(alone, among_all, rtol=1e-10, atol=1e-10)
    for got, expected in zip(
        torch.autograd.grad(alone, inputs, weights),
        torch.autograd.grad(among_all, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_scores_of_any_size_stay_finite():
    query, keys, values, grid = chain(0, 3)
    inputs = [(1e5 * query).detach().requires_grad_(), keys, values, grid]
    output, *gradients = output_and_gradients(chain_attention, *inputs)
    assert all(gradient.isfinite().all() for gradient in gradients)
    # one key takes all, whichever way the sums are rounded
    torch.testing.assert_close(output, chain_attention_reference(*inputs, SCALE), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("anchors", [None, 3])
def test_its_gradient_equals_finite_differences(anchors):
    sizes = {"length": 4, "batch": 1, "kv_heads": 1, "width": 2, "anchors": anchors}
    query, keys, values, grid = chain(0, 2, **sizes, dtype=torch.float64)

    def function(query, *keys_values):
        return chain_attention(query, keys_values[:2], keys_values[2:], grid, SCALE)

    assert gradcheck(function, (query, *keys, *values))


def test_it_agrees_with_the_reference_in_bfloat16_as_well_as_bfloat16_can():
    inputs = chain(0, 3)
    exact = chain_attention_reference(*inputs, SCALE)
    query, keys, values, grid = inputs
    low = chain_attention(
        query.bfloat16(), [k.bfloat16() for k in keys], [v.bfloat16() for v in values], grid, SCALE
    )
    assert low.dtype == torch.bfloat16
    # values are of size 3 at most and bf16 keeps 8 bits: 3 / 2^8 an input, a few inputs
    torch.testing.assert_close(low.float(), exact, rtol=0, atol=0.05)


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_score_matrix_over_all_queries_is_ever_built(monkeypatch):
    length = 64
    inputs = chain(0, 3, batch=1, kv_heads=1, groups=1, length=length)
    monkeypatch.setitem(attention.SLICE_SCORES, "cpu", 4 * length)
    with _Largest() as largest:
        output_and_gradients(chain_attention, *inputs)
    assert largest.elements <= 4 * length
    with _Largest() as largest:
        output_and_gradients(chain_attention_reference, *inputs)
    assert largest.elements == length * 3 * length
