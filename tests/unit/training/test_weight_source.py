"""Engines get the weights a policy with adapters computes with, under the names they know."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from openrlhf_mtp.heads.formats.head_folder import named_tensors
from openrlhf_mtp.heads.formats.native import to_native
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.training.trunk import unwrapped
from openrlhf_mtp.training.weight_source import head_source, policy_source, weights_to_send
from tests.natives import NATIVES


def policy(**changes: object) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    return Qwen2ForCausalLM(
        Qwen2Config(**{**sizes, "num_attention_heads": 2, "num_key_value_heads": 1, **changes})
    )


def adapted(model: Qwen2ForCausalLM, **settings: object) -> torch.nn.Module:
    """With adapters that change something."""
    wrapped = get_peft_model(
        model, LoraConfig(**{"r": 3, "lora_alpha": 12, "target_modules": "all-linear", **settings})
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return wrapped


@pytest.mark.parametrize("tied", [True, False])
def test_a_plain_policy_is_sent_as_it_is(tied):
    model = policy(tie_word_embeddings=tied)
    sent = {tensor.name: tensor.value() for tensor in weights_to_send(model)}
    assert sent.keys() == dict(model.named_parameters()).keys()
    assert all(sent[name].data_ptr() == p.data_ptr() for name, p in model.named_parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_are_merged_under_the_plain_names(tied):
    plain = policy(tie_word_embeddings=tied)
    wrapped = adapted(policy(tie_word_embeddings=tied))
    source = policy_source(unwrapped(wrapped), "float32", sharded=False)
    sent = dict(source.tensors())
    assert {s.name: s.shape for s in source.manifest.tensors} == {
        name: tuple(p.shape) for name, p in plain.named_parameters()
    }
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        expected, before = wrapped(tokens).logits, plain(tokens).logits
        plain.load_state_dict(sent, strict=False)
        torch.testing.assert_close(plain(tokens).logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-2)


def policy_with_experts() -> Qwen3MoeForCausalLM:
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**sizes, **experts, **heads))


def test_experts_are_sent_stacked_beside_adapters_of_attention():
    model = policy_with_experts()
    before = {name: tuple(p.shape) for name, p in model.named_parameters()}
    wrapped = adapted(model, target_modules=["q_proj", "o_proj"])
    source = policy_source(unwrapped(wrapped), "float32", sharded=False)
    assert {s.name: s.shape for s in source.manifest.tensors} == before
    assert before["model.layers.1.mlp.experts.gate_up_proj"] == (4, 16, 16)
    assert before["model.layers.1.mlp.experts.down_proj"] == (4, 16, 8)
    assert before["model.layers.1.mlp.gate.weight"] == (4, 16)


@pytest.mark.parametrize("targets", ["all-linear", ["gate_proj", "up_proj"], ["down_proj"], ["gate"]])
def test_adapters_of_experts_and_routers_are_refused(targets):
    """peft adapts transformers' stacked parameters under the names that they had as linear layers."""
    with pytest.raises(ValueError, match=r"got ParamWrapper, expected plain LoRA"):
        list(weights_to_send(unwrapped(adapted(policy_with_experts(), target_modules=targets))))


def test_what_is_sent_follows_the_adapters_as_they_train():
    wrapped = adapted(policy())
    source = policy_source(unwrapped(wrapped), "float32", sharded=False)
    name = "model.layers.1.mlp.down_proj.weight"
    before = dict(source.tensors())[name].clone()
    layer = unwrapped(wrapped).model.layers[1].mlp.down_proj
    with torch.no_grad():
        layer.lora_A["default"].weight.mul_(2)
    after = dict(source.tensors())[name]
    torch.testing.assert_close(after - layer.weight, 2 * (before - layer.weight), rtol=1e-4, atol=1e-6)


def test_a_small_change_is_not_lost_before_the_one_rounding():
    # in bfloat16, W + 2^-10 W is W again; two such changes added to W one by one would both vanish
    model = policy().to(torch.bfloat16)
    wrapped = adapted(model)
    layer = model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.lora_A["default"].weight.fill_(2**-7)
        layer.lora_B["default"].weight.fill_(2**-5 / 12)
    sent = dict(policy_source(unwrapped(wrapped), "bfloat16", sharded=False).tensors())
    merged = sent["model.layers.0.mlp.up_proj.weight"]
    assert merged.dtype == torch.float32
    assert (merged > 1.0).all()


@pytest.mark.parametrize(
    ("settings", "kind"),
    [({"use_dora": True}, "Linear"), ({"target_modules": ["embed_tokens"]}, "Embedding")],
    ids=["DoRA", "embedding"],
)
def test_an_adapter_of_another_kind_is_refused(settings, kind):
    with pytest.raises(ValueError, match=f"got {kind}, expected plain LoRA on a linear layer"):
        list(weights_to_send(unwrapped(adapted(policy(), **settings))))


SIZES = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
BIAS, GATE = "model.layers.1.mlp.gate.e_score_correction_bias", "model.layers.1.mlp.gate.weight"


def test_a_routers_bias_is_sent_in_float32_as_it_is_at_that_time():
    config = AutoConfig.for_model(**{**SIZES, **NATIVES["glm4_moe"]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    source = policy_source(model, "bfloat16", sharded=False)
    types = {spec.name: spec.dtype for spec in source.manifest.tensors}
    assert {name for name, dtype in types.items() if dtype == "float32"} == {BIAS, GATE}
    assert {name for name in types if name not in dict(model.named_parameters())} == {BIAS}
    bias = model.model.layers[1].mlp.gate.e_score_correction_bias
    with torch.no_grad():
        bias.copy_(torch.tensor([1.0, 1 + 2**-20, 3.0, -4.0]))
    assert torch.equal(dict(source.tensors())[BIAS], torch.tensor([1.0, 1 + 2**-20, 3.0, -4.0]))


@pytest.mark.parametrize("layout", ["glm4_moe", "deepseek_v3"])
def test_a_native_head_is_sent_under_its_checkpoints_names_with_experts_stacked(layout):
    config = AutoConfig.for_model(**{**SIZES, **NATIVES[layout]})
    head = MTPHead(HeadConfig.from_trunk(config, depths=3, layout=layout))
    for parameter in head.parameters():  # transformers leaves experts as they are in memory, NaN perhaps
        torch.nn.init.normal_(parameter)
    source = head_source(head, "bfloat16", config.num_hidden_layers)
    sent = dict(source.tensors())
    assert [(s.name, s.shape) for s in source.manifest.tensors] == [
        (n, tuple(t.shape)) for n, t in sent.items()
    ]
    native = to_native(head.config, dict(named_tensors(head)), config.num_hidden_layers)
    experts = {name for name in sent if ".experts." in name}
    assert experts == {f"model.layers.2.mlp.experts.{which}" for which in ("gate_up_proj", "down_proj")}
    whole = {name: tensor for name, tensor in native.items() if ".experts." not in name}
    assert sent.keys() - experts == whole.keys()
    assert all(torch.equal(sent[name], tensor) for name, tensor in whole.items())
    up = native["model.layers.2.mlp.experts.3.up_proj.weight"]
    assert torch.equal(sent["model.layers.2.mlp.experts.gate_up_proj"][3].chunk(2)[1], up)
    float32 = {spec.name for spec in source.manifest.tensors if spec.dtype == "float32"}
    assert "model.layers.2.mlp.gate.e_score_correction_bias" in float32
