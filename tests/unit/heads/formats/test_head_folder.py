"""The head's folder: bit for bit there and back, and refused with both sides when it does not fit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from openrlhf_mtp.heads.formats.head_folder import (
    CONFIG_FILE,
    HeadMismatch,
    head_tensor_specs,
    load_head,
    named_tensors,
    read_head_config,
    save_head,
)
from openrlhf_mtp.heads.formats.shards import WEIGHTS_FILE, DamagedCheckpoint, StoredTensor
from openrlhf_mtp.heads.head_config import HeadConfig
from tests.unit.heads.tiny import DEPTHS, FAMILIES, WIDTH, random_head, random_inputs, trunk_config


def load(folder, config, dtype=torch.float32):
    return load_head(folder, config, dtype=dtype, device="cpu")


@pytest.fixture
def folder(tmp_path):
    save_head(tmp_path / "mtp", random_head("qwen2"))
    return tmp_path / "mtp"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_round_trip_is_bit_exact(family, dtype, tmp_path):
    head = random_head(family, num_blocks=2, dtype=dtype)
    save_head(tmp_path, head)
    loaded = load(tmp_path, trunk_config(family), dtype)
    named = {"dtype": str(dtype).removeprefix("torch.")}  # of the file, whatever the trunk's was
    assert json.loads((tmp_path / CONFIG_FILE).read_text())["dtype"] == named["dtype"]
    assert loaded.config.to_json() == {**head.config.to_json(), **named}
    for (name, tensor), (other, expected) in zip(named_tensors(loaded), named_tensors(head), strict=True):
        assert name == other
        assert tensor.dtype == dtype
        assert tensor.requires_grad
        assert torch.equal(tensor, expected)
    for got, expected in zip(loaded(*random_inputs()), head(*random_inputs()), strict=True):
        assert torch.equal(got, expected)


def test_the_tensor_names_are_those_the_engine_and_the_sync_know(folder):
    specs = head_tensor_specs(folder)
    assert specs["model.blocks.0.proj.weight"] == StoredTensor((WIDTH, 2 * WIDTH), "F32")
    assert {n for n in specs if "layer" not in n} == {
        f"model.blocks.0.{part}.weight" for part in ("hidden_norm", "token_norm", "final_norm", "proj")
    }
    assert "model.blocks.0.layer.self_attn.q_proj.bias" in specs
    assert not any("embed" in n or "lm_head" in n or "rotary" in n for n in specs)


def test_the_configuration_is_one_an_engine_can_read(folder):
    content = json.loads((folder / CONFIG_FILE).read_text())
    assert content["architectures"] == ["EagleMTPDraft"]
    assert content["model_type"] == "qwen2"
    assert content["num_hidden_layers"] == 1
    assert content["layer_types"] == ["full_attention"]
    assert content["mtp"] == {"format": 1, "depths": 3, "num_layers": 1, "trunk_model_type": "qwen2"}


def test_the_trunks_sliding_window_is_not_the_heads():
    assert trunk_config("mistral").sliding_window == 4
    assert HeadConfig.from_trunk(trunk_config("mistral"), depths=3).model.sliding_window is None


def test_a_head_of_another_family_is_refused(folder):
    with pytest.raises(HeadMismatch, match="model_type: the head has qwen2, the policy llama"):
        load(folder, trunk_config("llama"))


def test_a_head_of_another_width_is_refused_with_both(folder):
    with pytest.raises(HeadMismatch, match="hidden_size: the head has 32, the policy 64"):
        load(folder, trunk_config("qwen2", hidden_size=64))


def test_a_head_for_another_vocabulary_is_refused_with_both(folder):
    with pytest.raises(HeadMismatch, match="vocab_size: the head has 48, the policy 50"):
        load(folder, trunk_config("qwen2", vocab_size=50))


def test_a_head_with_other_rotary_positions_is_refused_with_both(folder):
    """The loader asks the contract that `check` asks: a policy stretched after it was equipped, for example."""
    stretched = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
    with pytest.raises(HeadMismatch, match="rope_type: the head has default, the policy linear"):
        load(folder, trunk_config("qwen2", rope_parameters=stretched))


@pytest.mark.parametrize("name", ["num_attention_heads", "num_key_value_heads"])
def test_a_head_with_another_attention_is_refused_with_both(folder, name):
    here = vars(trunk_config("qwen2"))[name]
    with pytest.raises(HeadMismatch, match=f"{name}: the head has {here}, the policy {2 * here}"):
        load(folder, trunk_config("qwen2", **{name: 2 * here}))


def test_every_wrong_tensor_is_listed_with_both_shapes(folder):
    tensors = load_file(folder / WEIGHTS_FILE)
    tensors["model.blocks.0.proj.weight"] = torch.zeros(WIDTH, 3)
    tensors["model.blocks.7.proj.weight"] = torch.zeros(1)
    del tensors["model.blocks.0.final_norm.weight"]
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(HeadMismatch) as refusal:
        load(folder, trunk_config("qwen2"))
    message = str(refusal.value)
    assert "model.blocks.0.proj.weight: shape [32, 3] in the file, expected [32, 64]" in message
    assert "model.blocks.7.proj.weight: shape [1] in the file, the head has no such tensor" in message
    assert "model.blocks.0.final_norm.weight: missing in the file, expected shape [32]" in message


@pytest.mark.parametrize("kept", [0, 7, 200, -1])
def test_a_truncated_file_is_refused(folder, kept):
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:kept])
    with pytest.raises(DamagedCheckpoint, match="bytes that cannot be read as safetensors"):
        load(folder, trunk_config("qwen2"))


def test_a_head_without_weights_is_refused(folder):
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(DamagedCheckpoint, match="no file"):
        load(folder, trunk_config("qwen2"))


def test_a_missing_head_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="openrlhf-mtp equip"):
        load(tmp_path, trunk_config("qwen2"))


def test_a_policy_folder_is_not_a_head(tmp_path):
    trunk_config("qwen2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"point mtp\.head at the head's folder"):
        read_head_config(tmp_path)


def test_a_future_format_is_refused(folder):
    content = json.loads((folder / CONFIG_FILE).read_text())
    content["mtp"]["format"] = 2
    (folder / CONFIG_FILE).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="got head format 2, expected 1"):
        read_head_config(folder)


def test_an_unsupported_family_is_refused_with_the_supported_ones():
    config = trunk_config("qwen2")
    config.model_type = "mamba"
    with pytest.raises(
        ValueError, match="got 'mamba', expected one of qwen2, qwen3, qwen3_moe, llama, mistral"
    ):
        HeadConfig.from_trunk(config, depths=3)


@pytest.mark.parametrize(
    ("depths", "num_blocks", "name"), [(0, 1, "depths"), (-1, 1, "depths"), (2, 3, "num_blocks")]
)
def test_impossible_depths_and_blocks_are_refused(depths, num_blocks, name):
    with pytest.raises(ValueError, match=f"^{name}: got"):
        HeadConfig.from_trunk(trunk_config("qwen2"), depths=depths, num_blocks=num_blocks)


def test_a_save_that_fails_leaves_the_old_head(folder, monkeypatch):
    before = (folder / WEIGHTS_FILE).read_bytes()

    def disk_full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("openrlhf_mtp.heads.formats.shards.save_file", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_head(folder, random_head("qwen2"))
    assert (folder / WEIGHTS_FILE).read_bytes() == before
    assert load(folder, trunk_config("qwen2")).config.depths == DEPTHS
