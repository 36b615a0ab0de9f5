"""The chain on a CUDA device: equal to the reference and to the CPU, in float32 and bfloat16, and lean in memory."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from openrlhf_mtp.heads import flash
from openrlhf_mtp.heads.attention import chain_attention
from openrlhf_mtp.heads.grid import AnchorGrid
from tests.unit.heads.attention_reference import chain_attention_reference
from tests.unit.heads.tiny import FAMILIES, random_head, random_inputs

# relative error of a whole tensor: summation order in float32 (24 bits), rounded operands in bfloat16 (8 bits)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}
GROUPS, WIDTH = 4, 64


def chain(depths, dtype, *, batch=2, kv_heads=2, length=300, sample=90, every=2):
    """Query, keys, values and grid of a chain: padding, then packed samples, an anchor at `every` so many positions."""
    generator = torch.Generator().manual_seed(0)

    def normal(heads, length):
        draw = torch.randn(batch, heads, length, WIDTH, generator=generator)
        return draw.to("cuda", dtype).requires_grad_()

    segments = torch.arange(length, device="cuda").expand(batch, -1) // sample
    index = torch.arange(0, length, every, device="cuda").expand(batch, -1)
    lengths = [length] + [index.shape[1]] * (depths - 1)
    query = normal(kv_heads * GROUPS, index.shape[1])
    keys, values = [normal(kv_heads, n) for n in lengths], [normal(kv_heads, n) for n in lengths]
    return query, keys, values, AnchorGrid(segments, index), WIDTH**-0.5


def output_and_gradients(function, query, keys, values, grid, scale):
    output = function(query, keys, values, grid, scale)
    return [output.detach(), *torch.autograd.grad(output.float().square().sum(), [query, *keys, *values])]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("depths", [1, 3])
def test_chain_attention_equals_the_reference(depths, dtype):
    query, keys, values, *rest = inputs = chain(depths, dtype)
    query, keys, values = (
        [tensor.detach().double().requires_grad_() for tensor in tensors]
        for tensors in ([query], keys, values)
    )
    exact = output_and_gradients(chain_attention_reference, *query, keys, values, *rest)
    for got, expected in zip(output_and_gradients(chain_attention, *inputs), exact, strict=True):
        error = (got - expected).norm() / expected.norm().clamp(min=1.0)
        assert error < TOLERANCE[dtype]


def with_exact_reference(inputs):
    """Output and gradients that are used, each beside the reference's in float64."""
    query, keys, values, *rest = inputs
    query, keys, values = (
        [tensor.detach().double().requires_grad_() for tensor in tensors]
        for tensors in ([query], keys, values)
    )
    exact = output_and_gradients(chain_attention_reference, *query, keys, values, *rest)
    return zip(output_and_gradients(chain_attention, *inputs), exact, strict=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("depths", [1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 8])
def test_flash_attention_computes_consecutive_anchors(depths, dtype, kv_heads):
    inputs = chain(depths, dtype, kv_heads=kv_heads, every=1)
    with (
        mock.patch.object(flash, "attend", wraps=flash.attend) as attend,
        mock.patch.object(flash, "gradients", wraps=flash.gradients) as gradients,
    ):
        found = list(with_exact_reference(inputs))
    assert attend.call_count == gradients.call_count == 1
    for got, expected in found:
        assert (got - expected).norm() / expected.norm().clamp(min=1.0) < TOLERANCE[torch.bfloat16]


def test_flash_attention_leaves_scattered_anchors_and_full_precision_to_the_present_form():
    with mock.patch.object(flash, "attend", wraps=flash.attend) as attend:
        output_and_gradients(chain_attention, *chain(3, torch.bfloat16, every=2))
        output_and_gradients(chain_attention, *chain(3, torch.float32, every=1))
    assert attend.call_count == 0


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_chain_in_parts_equals_the_chain_in_one_piece(dtype):
    head = random_head("qwen3", dtype=dtype, device="cuda")
    inputs = random_inputs(length=300, dtype=dtype, device="cuda")
    found = []
    for size in (10_000, 64):
        head.part = size
        states = torch.stack(head(*inputs)).float()
        found.append([states, *torch.autograd.grad(states.square().sum(), list(head.parameters()))])
    for got, expected in zip(*found, strict=True):
        assert (got.float() - expected.float()).norm() <= 2 * TOLERANCE[dtype] * expected.float().norm()


def test_long_chains_need_no_score_matrix():
    # 16,384 positions and 8 heads: one [T, T] score matrix would be 8 GiB in float32, [T, 3 T] 24 GiB
    length = 16_384
    inputs = chain(3, torch.bfloat16, batch=1, length=length, sample=length, every=1)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    output_and_gradients(chain_attention, *inputs)
    assert torch.cuda.max_memory_allocated() - before < 3 * 2**30


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_the_head_on_cuda_equals_the_head_on_the_cpu(family, num_blocks):
    here = random_head(family, num_blocks=num_blocks)(*random_inputs())
    there = random_head(family, num_blocks=num_blocks, device="cuda")(*random_inputs(device="cuda"))
    for got, expected in zip(there, here, strict=True):
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_head_follows_the_float32_head(family):
    exact = random_head(family, device="cuda")(*random_inputs(device="cuda"))
    low = random_head(family, dtype=torch.bfloat16, device="cuda")(
        *random_inputs(dtype=torch.bfloat16, device="cuda")
    )
    for got, expected in zip(low, exact, strict=True):
        assert got.dtype == torch.bfloat16
        assert torch.nn.functional.cosine_similarity(got.float(), expected, dim=-1).min() > 0.99
