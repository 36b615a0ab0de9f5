"""The chain attention that is used against the one that is obviously right."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from openrlhf_mtp.heads import attention
from openrlhf_mtp.heads.attention import chain_attention, chain_attention_reference

SCALE = 0.4


def chain(seed, depths, *, batch=2, kv_heads=2, groups=2, length=9, width=4, dtype=torch.float32):
    """Query, keys, values and segments of a chain at its last depth."""
    generator = torch.Generator().manual_seed(seed)

    def normal(heads):
        return torch.randn(batch, heads, length, width, generator=generator, dtype=dtype).requires_grad_()

    query, keys, values = (
        normal(kv_heads * groups),
        [normal(kv_heads) for _ in range(depths)],
        [normal(kv_heads) for _ in range(depths)],
    )
    boundaries = torch.rand(batch, length, generator=generator) < 0.3
    segments = boundaries.long().cumsum(-1)  # the first segment is padding
    return query, keys, values, segments


def output_and_gradients(function, query, keys, values, segments):
    output = function(query, keys, values, segments, SCALE)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return [output.detach(), *torch.autograd.grad(output, [query, *keys, *values], weights)]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    depths=st.integers(1, 4),
    kv_heads=st.integers(1, 3),
    groups=st.integers(1, 3),
    length=st.integers(1, 10),
    rows_a_slice=st.integers(1, 10),
)
def test_it_equals_the_reference_with_its_gradients(seed, depths, kv_heads, groups, length, rows_a_slice):
    inputs = chain(seed, depths, kv_heads=kv_heads, groups=groups, length=length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "SLICE_SCORES", 2 * kv_heads * groups * length * rows_a_slice)
        used = output_and_gradients(chain_attention, *inputs)
    for got, expected in zip(used, output_and_gradients(chain_attention_reference, *inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_its_gradient_equals_finite_differences():
    query, keys, values, segments = chain(0, 2, length=4, batch=1, kv_heads=1, width=2, dtype=torch.float64)

    def function(query, *keys_values):
        return chain_attention(query, keys_values[:2], keys_values[2:], segments, SCALE)

    assert gradcheck(function, (query, *keys, *values))


def test_it_agrees_with_the_reference_in_bfloat16_as_well_as_bfloat16_can():
    inputs = chain(0, 3)
    exact = chain_attention_reference(*inputs, SCALE)
    query, keys, values, segments = inputs
    low = chain_attention(
        query.bfloat16(), [k.bfloat16() for k in keys], [v.bfloat16() for v in values], segments, SCALE
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
    monkeypatch.setattr(attention, "SLICE_SCORES", 4 * length)
    with _Largest() as largest:
        output_and_gradients(chain_attention, *inputs)
    assert largest.elements <= 4 * length
    with _Largest() as largest:
        output_and_gradients(chain_attention_reference, *inputs)
    assert largest.elements == length * 3 * length
