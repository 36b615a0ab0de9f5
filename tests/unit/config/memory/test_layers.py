"""What a layer and a chain keep by formula, against what autograd keeps of them."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from openrlhf_mtp.bench.kept import KeptMemory
from openrlhf_mtp.config.memory import layers
from openrlhf_mtp.config.model_files import ModelShape, model_shape
from openrlhf_mtp.heads.head import PART
from tests.unit.heads.test_recompute import RATIOS, kept_by_a_token
from tests.unit.heads.tiny import trunk_config

TOKENS = 96
FLOATS = {2: torch.bfloat16, 4: torch.float32}


def config_of(family: str, **changes: int):
    return trunk_config(family, **{**RATIOS, "num_hidden_layers": 1, **changes})


def shape_of(family: str) -> ModelShape:
    return model_shape(config_of(family).to_dict())


def kept_by_model(family: str, each: int, num_layers: int, *, padded: bool) -> float:
    """Bytes that the body of a model keeps of a token."""
    config = config_of(family, num_hidden_layers=num_layers)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(FLOATS[each])
    tokens = torch.zeros(2, TOKENS, dtype=torch.long)
    mask = torch.ones_like(tokens)
    mask[0, : TOKENS // 2] = 1 - padded
    with KeptMemory(model.parameters()).counting() as kept:
        states = model.model(tokens, attention_mask=mask).last_hidden_state
    found = kept.bytes / tokens.numel()
    states.sum().backward()
    return found


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("each", [2, 4])
@pytest.mark.parametrize("padded", [True, False])
def test_a_layer_of_the_policy_keeps_what_the_formula_says(family, each, padded):
    two, one = (kept_by_model(family, each, n, padded=padded) for n in (2, 1))
    assert two - one == pytest.approx(layers.layer(shape_of(family), each, copies_keys=padded), rel=0.1)


@pytest.mark.parametrize("depths", [1, 3])
def test_a_chain_in_one_piece_keeps_what_the_formula_says(depths):
    kept = kept_by_a_token(depths, size=10**6) * RATIOS["hidden_size"]
    assert kept == pytest.approx(depths * layers.depth(shape_of("qwen3"), 2), rel=0.1)


@pytest.mark.parametrize("depths", [1, 3])
def test_a_constant_head_keeps_nothing_for_its_own_gradient(depths):
    kept = kept_by_a_token(depths, size=10**6, is_constant=True) * RATIOS["hidden_size"]
    expected = depths * layers.depth(shape_of("qwen3"), 2, constant=True)
    assert kept == pytest.approx(expected, rel=0.1)
    assert expected < 0.85 * depths * layers.depth(shape_of("qwen3"), 2)


@pytest.mark.parametrize("depths", [1, 3])
def test_a_chain_in_parts_keeps_what_the_formula_says(depths):
    shape, tokens = shape_of("qwen3"), 16 * layers.PART
    expected, again = layers.chain(shape, 2, tokens=tokens, depths=depths, blocks=1)
    kept = kept_by_a_token(depths, size=64) * RATIOS["hidden_size"]
    assert kept == pytest.approx(expected / tokens, rel=0.1)
    assert again == layers.PART * depths * layers.depth(shape, 2)


def test_a_part_has_the_size_of_the_heads():
    assert layers.PART == PART
