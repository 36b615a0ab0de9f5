"""A fresh head beside a policy that plain transformers still loads."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from openrlhf_mtp.heads.formats.equip import dense_layer, equip
from openrlhf_mtp.heads.formats.head_folder import load_head
from tests.unit.heads.tiny import DEPTHS, FAMILIES, SIZES, random_inputs, trunk_config


@pytest.fixture
def make_policy(tmp_path):
    """Saves a random policy and returns its folder."""

    def make(family="qwen2", **save_options):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(trunk_config(family), dtype=torch.bfloat16)
        model.save_pretrained(tmp_path / "policy", **save_options)
        return tmp_path / "policy"

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folder_holds_the_policy_and_a_head_from_its_last_layer(family, make_policy, tmp_path):
    source = make_policy(family)
    head_dir = equip(source, tmp_path / "out", depths=DEPTHS, num_blocks=2)
    assert head_dir == tmp_path / "out" / "mtp"
    policy, copy = (AutoModelForCausalLM.from_pretrained(folder) for folder in (source, tmp_path / "out"))
    for (name, tensor), (other, expected) in zip(
        copy.named_parameters(), policy.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(tensor, expected)
    head = load_head(head_dir, policy.config, dtype=torch.bfloat16, device="cpu")
    for block in head.blocks:
        last = policy.model.layers[-1].state_dict()
        assert {n: t.tolist() for n, t in block.layer.state_dict().items()} == {
            n: t.tolist() for n, t in last.items()
        }
        assert torch.equal(block.final_norm.weight, policy.model.norm.weight)


def test_a_policy_can_be_equipped_in_place(make_policy):
    source = make_policy()
    assert equip(source, source, depths=2) == source / "mtp"
    assert AutoModelForCausalLM.from_pretrained(source).config.model_type == "qwen2"


def test_a_sharded_policy_can_be_equipped(make_policy, tmp_path):
    source = make_policy(max_shard_size="10KB")
    assert (source / "model.safetensors.index.json").is_file()
    assert (equip(source, tmp_path / "out", depths=2) / "model.safetensors").is_file()


def test_a_folder_that_was_trained_in_gives_the_model_alone(make_policy, tmp_path):
    source = make_policy()
    for name in ("optimizer.pt", "global_step3/optim_states.pt", "templates/tool_use.jinja"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")
    equip(source, tmp_path / "out", depths=2)
    made = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    of_head = {"mtp/config.json", "mtp/model.safetensors"}
    assert (
        made
        == {"config.json", "generation_config.json", "model.safetensors", "templates/tool_use.jinja"}
        | of_head
    )


def test_the_same_seed_gives_the_same_head_and_touches_no_global_randomness(make_policy, tmp_path):
    source = make_policy()
    state = torch.random.get_rng_state()
    first, second, third = (
        (equip(source, tmp_path / str(n), depths=2, seed=seed) / "model.safetensors").read_bytes()
        for n, seed in enumerate([0, 0, 1])
    )
    assert first == second != third
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_existing_head_is_never_overwritten(make_policy, tmp_path):
    source = make_policy()
    equip(source, source, depths=2)
    for target in (source, tmp_path / "out"):
        with pytest.raises(FileExistsError, match="there is a head already"):
            equip(source, target, depths=2)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the folder of a Hugging Face model"):
        equip(tmp_path, tmp_path / "out", depths=2)


def test_a_policy_without_safetensors_is_refused(make_policy, tmp_path):
    source = make_policy()
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="expected a model saved as safetensors"):
        equip(source, tmp_path / "out", depths=2)


def test_an_unsupported_family_leaves_nothing_behind(make_policy, tmp_path):
    source = make_policy()
    text = (source / "config.json").read_text()
    (source / "config.json").write_text(text.replace('"model_type": "qwen2"', '"model_type": "gpt2"'))
    with pytest.raises(ValueError, match="got 'gpt2', expected one of qwen2"):
        equip(source, tmp_path / "out", depths=2)
    assert not (tmp_path / "out").exists()


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 16}


def test_a_policy_with_experts_gets_a_dense_block_that_starts_as_the_mean_of_some(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model("qwen3_moe", **{**SIZES, **EXPERTS})
    policy = AutoModelForCausalLM.from_config(config)
    policy.save_pretrained(tmp_path / "policy")
    head_dir = equip(tmp_path / "policy", tmp_path / "out", depths=DEPTHS)
    head = load_head(head_dir, config, dtype=torch.float32, device="cpu")
    assert (head.config.trunk_model_type, head.config.model.model_type) == ("qwen3_moe", "qwen3")
    block, last = head.blocks[0].layer, policy.model.layers[-1]
    assert torch.equal(block.self_attn.q_norm.weight, last.self_attn.q_norm.weight)
    # 48 wide: two experts of 24 each
    x = torch.randn(5, SIZES["hidden_size"])
    outputs = []
    for gate_up, down in zip(last.mlp.experts.gate_up_proj[:2], last.mlp.experts.down_proj[:2], strict=True):
        gate, up = (x @ gate_up.T).chunk(2, dim=-1)
        outputs.append((torch.nn.functional.silu(gate) * up) @ down.T)
    torch.testing.assert_close(block.mlp(x), sum(outputs) / 2, rtol=1e-4, atol=1e-6)
    sum(z.square().mean() for z in head(*random_inputs())).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("width", [10, 24, 30, 48, 100])
def test_a_dense_block_may_be_narrower_or_wider_than_all_experts(width):
    generator = torch.Generator().manual_seed(0)
    layer = {"input_layernorm.weight": torch.ones(8), "mlp.gate.weight": torch.zeros(2, 8)}
    for n in range(2):
        layer[f"mlp.experts.{n}.gate_proj.weight"] = torch.randn(24, 8, generator=generator)
        layer[f"mlp.experts.{n}.up_proj.weight"] = torch.randn(24, 8, generator=generator)
        layer[f"mlp.experts.{n}.down_proj.weight"] = torch.randn(8, 24, generator=generator)
    dense = dense_layer(layer, width, generator)
    assert {name: tuple(tensor.shape) for name, tensor in dense.items()} == {
        "input_layernorm.weight": (8,),
        "mlp.gate_proj.weight": (width, 8),
        "mlp.up_proj.weight": (width, 8),
        "mlp.down_proj.weight": (8, width),
    }
    for name in ("gate_proj", "up_proj", "down_proj"):
        rows = dense[f"mlp.{name}.weight"] if name != "down_proj" else dense[f"mlp.{name}.weight"].T
        assert rows.any(dim=1).all(), "every neuron can learn"
