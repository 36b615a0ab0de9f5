"""A fresh head beside a policy that plain transformers still loads."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from openrlhf_mtp.heads.checkpoint import load_head
from openrlhf_mtp.heads.equip import equip
from tests.unit.heads.tiny import DEPTHS, FAMILIES, trunk_config


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
def test_the_folder_is_the_same_policy_and_a_head_that_starts_from_its_last_layer(
    family, make_policy, tmp_path
):
    source = make_policy(family)
    head_dir = equip(source, tmp_path / "out", depths=DEPTHS, num_layers=2)
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
