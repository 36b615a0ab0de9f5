"""Rotary frequencies that were rounded to bfloat16 come back exactly; those that were not are left alone."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from openrlhf_mtp.upstream.openrlhf.zero3_rotary import restore_rotary_frequencies

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.fixture(params=["qwen2", "qwen3", "llama", "mistral"])
def model(request) -> torch.nn.Module:
    config = AutoConfig.for_model(
        request.param,
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        **({"rope_parameters": LLAMA3_ROPE} if request.param == "llama" else {}),
    )
    return AutoModelForCausalLM.from_config(config)


def frequencies(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "inv_freq" in name}


def test_rounded_frequencies_are_restored_and_the_weights_untouched(model):
    right, weights = frequencies(model), {name: p.clone() for name, p in model.named_parameters()}
    for name in right:
        module, _, buffer = name.rpartition(".")
        model.get_submodule(module).register_buffer(buffer, right[name].bfloat16(), persistent=False)
    assert not all(torch.equal(frequencies(model)[name].float(), right[name]) for name in right)
    assert restore_rotary_frequencies(model) == 1
    assert all(torch.equal(frequencies(model)[name], right[name]) for name in right)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())
    assert not [name for name in model.state_dict() if "inv_freq" in name]


def test_a_model_in_full_precision_keeps_its_own_buffers(model):
    before = {name: buffer.data_ptr() for name, buffer in model.named_buffers()}
    assert restore_rotary_frequencies(model) == 0
    assert {name: buffer.data_ptr() for name, buffer in model.named_buffers()} == before


def test_a_model_without_rotary_embeddings_is_left_alone():
    assert restore_rotary_frequencies(torch.nn.Sequential(torch.nn.BatchNorm1d(2))) == 0
