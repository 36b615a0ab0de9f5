"""The trunk's two matrices reach the head; who may send gradients back is decided by the losses."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from openrlhf_mtp.training.trunk import Trunk, twin


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=request.param,
    )
    return Qwen2ForCausalLM(config)


class Wrapped(torch.nn.Module):
    """A DeepSpeed engine keeps the model in `module`."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module


def test_both_matrices_are_found_bare_and_inside_an_engine(model):
    for wrapped in (model, Wrapped(model)):
        trunk = Trunk.of(wrapped)
        assert trunk.embedding is model.model.embed_tokens
        assert trunk.output_head is model.lm_head
        assert trunk.final_norm is model.model.norm
        assert trunk.config is model.config


def test_both_matrices_are_found_behind_adapters(model):
    from peft import LoraConfig, get_peft_model

    trunk = Trunk.of(Wrapped(get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))))
    assert trunk.embedding is model.model.embed_tokens
    assert trunk.output_head is model.lm_head
    assert trunk.final_norm is model.model.norm


def test_the_weights_are_the_policys_own(model):
    with Trunk.of(model).weights(sharded=False) as (embedding, output_head):
        assert embedding is model.model.embed_tokens.weight, "a copy would go stale"
        assert output_head is model.lm_head.weight


def test_a_twin_has_the_modules_attributes_and_none_of_its_hooks(model):
    norm, calls = model.model.norm, []
    copy = torch.nn.Parameter(2 * norm.weight.detach())
    made = twin(norm, {norm.weight: copy})
    norm.register_forward_pre_hook(lambda *_: calls.append(1))
    states = torch.randn(2, 3, 16)
    torch.testing.assert_close(made(states), 2 * norm(states))
    assert calls == [1]
    assert made.weight is copy
    assert norm.weight is not copy
