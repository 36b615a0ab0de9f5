"""A sample in a packed or left-padded batch gives what it gives alone, in models with linear attention."""

from __future__ import annotations

import importlib

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from openrlhf_mtp.upstream.linear_attention import MODULES, PATCHES, borders
from openrlhf_mtp.upstream.patching import install
from tests.engine.tiny import SIZES
from tests.natives import NATIVES

LENGTHS = (5, 70, 1, 2)  # a chunk of the linear layers has 64 positions, the convolution reads 4
EXPERTS = {key: NATIVES["qwen3_next"][key] for key in ("num_experts", "num_experts_per_tok")}
SIBLINGS = {
    "qwen3_5_text": NATIVES["qwen3_5"],
    "qwen3_next": NATIVES["qwen3_next"],
    "qwen3_5_moe_text": {
        **NATIVES["qwen3_5"],
        **EXPERTS,
        "model_type": "qwen3_5_moe_text",
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
    },
}


@pytest.fixture(params=SIBLINGS)
def model(request):
    install(PATCHES)
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**SIZES, **SIBLINGS[request.param]})
    config.use_cache = False
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(SIZES["vocab_size"], (length,), generator=generator) for length in LENGTHS]


def packed(model, samples):
    """As OpenRLHF calls a model with a packed row."""
    positions = torch.cat([torch.arange(len(sample)) for sample in samples])
    row = torch.cat(samples)[None]
    return model(row, attention_mask=None, position_ids=positions[None]).logits[0].split(LENGTHS)


def gradients(model, logits):
    model.zero_grad()
    sum(one.square().sum() for one in logits).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_packed_row_gives_the_logits_and_gradients_of_its_samples(model, samples, checkpointed):
    alone = [model(sample[None]).logits[0] for sample in samples]
    expected = gradients(model, alone)
    if checkpointed:
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    together = packed(model, samples)
    found = gradients(model, together)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert found.keys() == expected.keys()
    assert any("linear_attn.conv1d" in name for name in found)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-3 * gradient.abs().max())


def test_transformers_alone_lets_a_sample_read_the_one_before(model, samples, monkeypatch):
    module = importlib.import_module(type(model).__module__)
    _, layer = MODULES[module.__name__]
    kind = getattr(module, layer)
    monkeypatch.setattr(kind, "forward", kind.forward.__wrapped__)
    row = packed(model, samples)
    first, second = (model(sample[None]).logits[0] for sample in samples[:2])
    torch.testing.assert_close(row[0], first, rtol=1e-4, atol=1e-5)
    assert (row[1] - second).abs().max() > 1e-3


def test_a_left_padded_batch_gives_the_logits_of_its_samples(model, samples):
    longest = max(LENGTHS)
    batch = torch.stack([torch.nn.functional.pad(s, (longest - len(s), 3), value=7) for s in samples])
    mask = torch.stack(
        [torch.nn.functional.pad(torch.ones(len(s)), (longest - len(s), 3)) for s in samples]
    ).long()
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)  # as OpenRLHF counts
    logits = model(batch, attention_mask=mask, position_ids=positions).logits
    for row, real, sample in zip(logits, mask, samples, strict=True):
        torch.testing.assert_close(row[real.bool()], model(sample[None]).logits[0], rtol=1e-4, atol=1e-5)


def test_one_sample_has_no_border():
    assert borders(torch.arange(4)[None]) is None
    assert borders(torch.tensor([[0, 1, 0, 0, 1, 2]])).tolist() == [0, 2, 3, 6]


def test_a_row_that_begins_within_a_sample_is_refused():
    with pytest.raises(ValueError, match="begins at position 3, expected one that begins with a sample"):
        borders(torch.tensor([[3, 4, 0, 1]]))
