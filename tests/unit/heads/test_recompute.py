"""A long chain in parts: equal to the chain in one piece, at a tenth of the memory, its attention computed once."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.bench.kept import KeptMemory
from openrlhf_mtp.heads import attention
from openrlhf_mtp.heads.constant import constant
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig
from tests.unit.heads.test_head import batches, states_and_gradients, with_float64_norms
from tests.unit.heads.tiny import DEPTHS, FAMILIES, WIDTH, random_head, random_inputs, trunk_config

WHOLE = 10**6


# float64 is the proof; in float32 a sum over parts rounds in another order
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@settings(max_examples=40, deadline=None)
@given(
    batch=batches(),
    family=st.sampled_from(list(FAMILIES)),
    num_blocks=st.integers(1, 3),
    size=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_a_chain_in_parts_equals_the_chain_in_one_piece(
    dtype, tolerance, batch, family, num_blocks, size, seed
):
    segment_ids, index = batch
    module = random_head(family, num_blocks=num_blocks)
    module = with_float64_norms(module) if dtype == torch.float64 else module
    hidden, embeddings, positions, _, _ = random_inputs(*segment_ids.shape, dtype=dtype)
    depths = 1 + seed % DEPTHS
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(depths, *index.shape, WIDTH, generator=generator, dtype=dtype)
    inputs = hidden, embeddings, positions, segment_ids, depths
    found = []
    for part in (WHOLE, size):
        module.part = part
        found.append(states_and_gradients(module, inputs, index, weights, everywhere=False))
    (states, gradients), (of_parts, gradients_of_parts) = found
    torch.testing.assert_close(of_parts, states, rtol=0, atol=tolerance)
    for got, expected in zip(gradients_of_parts, gradients, strict=True):
        assert (got is None) == (expected is None)
        if got is not None and expected is not None:
            assert (got - expected).norm() <= tolerance * max(1.0, expected.norm())


def test_every_position_as_an_anchor_in_parts():
    module, inputs = random_head("qwen3"), random_inputs(batch=3)
    states = module(*inputs)
    for size in (1, 4, 9, 18, 20):
        module.part = size
        for z, expected in zip(module(*inputs), states, strict=True):
            torch.testing.assert_close(z, expected, rtol=1e-5, atol=1e-5)


def gradients(module, inputs, wanted):
    return torch.autograd.grad(sum(z.square().sum() for z in module(*inputs)), wanted, retain_graph=True)


def test_gradients_go_through_a_constant_head_and_not_into_it():
    module = random_head("qwen3", num_blocks=2)
    hidden, embeddings, *rest = random_inputs()
    leaves = [tensor.requires_grad_() for tensor in (hidden, *embeddings)]
    expected = gradients(module, (hidden, embeddings, *rest), leaves)
    for size in (WHOLE, 4):
        module.part = size
        states = constant(module)(hidden, embeddings, *rest)
        got = torch.autograd.grad(sum(z.square().sum() for z in states), leaves)
        assert all(parameter.grad is None for parameter in module.parameters())
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_graph_that_is_kept_can_be_differentiated_twice():
    module, inputs = random_head("qwen2"), random_inputs()
    module.part = 4
    loss = sum(z.square().sum() for z in module(*inputs))
    first, second = (
        torch.autograd.grad(loss, list(module.parameters()), retain_graph=again) for again in (True, False)
    )
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_attention_is_computed_once():
    module, inputs = random_head("qwen2"), random_inputs(batch=2, length=9)
    module.part = 3
    with mock.patch.object(attention, "_attended", wraps=attention._attended) as attended:
        sum(z.square().sum() for z in module(*inputs)).backward()
    assert attended.call_count == 2 * 3 * DEPTHS


def test_without_gradients_nothing_is_kept():
    module, inputs = random_head("qwen2"), random_inputs()
    module.part = 4
    with torch.no_grad(), KeptMemory().counting() as kept:
        states = module(*inputs)
    assert kept.bytes == 0
    torch.testing.assert_close(states, module(*inputs), rtol=1e-5, atol=1e-5)


RATIOS = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
"""Those of Qwen3-8B, a sixteenth as wide."""


def kept_by_a_token(depths, *, size, tokens=512, is_constant=False):
    """Bytes that a chain keeps for backward, by token and channel; its inputs want gradients where its parameters are
    constants."""
    module = MTPHead(HeadConfig.from_trunk(trunk_config("qwen3", **RATIOS), depths=depths)).bfloat16()
    width = RATIOS["hidden_size"]
    draws = torch.randn(depths + 1, 1, tokens, width, dtype=torch.bfloat16)
    positions = torch.arange(tokens)[None]
    inputs = (
        draws[0].clone().requires_grad_(is_constant),
        [draw.clone().requires_grad_(is_constant) for draw in draws[1:]],
        positions,
        torch.ones_like(positions),
        depths,
    )
    module.part = size
    with KeptMemory(module.parameters()).counting() as kept:
        states = (constant(module) if is_constant else module)(*inputs)
    found = kept.bytes / tokens / width
    sum(z.float().sum() for z in states).backward()
    return found


@pytest.mark.parametrize("depths", [1, 2, 3])
def test_a_chain_in_parts_keeps_little_for_backward(depths):
    assert kept_by_a_token(depths, size=64) <= 8 + 4 * depths
    assert kept_by_a_token(depths, size=WHOLE) >= 60 * depths, "what is measured is not what parts are for"
