"""Native heads of checkpoints: names and math as vLLM has them, there and back bit for bit, or refused."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from openrlhf_mtp.config.native_layouts import LAYOUTS
from openrlhf_mtp.heads.formats.equip import equip
from openrlhf_mtp.heads.formats.head_folder import HeadMismatch, load_head, named_tensors, save_head
from openrlhf_mtp.heads.formats.native import (
    _joined,
    _pieces,
    find_layout,
    from_native,
    read_native,
    read_trunk_config,
    to_native,
)
from openrlhf_mtp.heads.formats.shards import WEIGHTS_FILE, DamagedCheckpoint
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.heads.hf_classes import norm_class, rotary_class
from tests.natives import NATIVES, write_native_checkpoint
from tests.unit.heads.tiny import DEPTHS, SIZES, random_inputs

LAYOUT_NAMES = tuple(LAYOUTS)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Layout -> folder of a checkpoint with its own head."""
    root = tmp_path_factory.mktemp("natives")
    for layout in LAYOUT_NAMES:
        write_native_checkpoint(root / layout, layout, SIZES)
    return {layout: root / layout for layout in LAYOUT_NAMES}


@pytest.fixture
def damaged(checkpoints, tmp_path):
    """A copy of the MiMo checkpoint whose tensors a function may change."""

    def change(function):
        folder = tmp_path / "damaged"
        folder.mkdir()
        (folder / "config.json").write_bytes((checkpoints["mimo"] / "config.json").read_bytes())
        tensors = load_file(checkpoints["mimo"] / WEIGHTS_FILE)
        function(tensors)
        save_file(tensors, folder / WEIGHTS_FILE)
        return folder

    return change


def read(folder):
    return read_native(folder, read_trunk_config(folder), depths=DEPTHS)


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_a_native_head_goes_there_and_back_bit_for_bit(layout, checkpoints):
    head = read(checkpoints[layout])
    assert head.config.layout == layout
    layers = head.config.model.num_hidden_layers + 1
    native = to_native(head.config, dict(named_tensors(head)), layers)
    back = from_native(head.config, native, layers)
    assert back.keys() == dict(named_tensors(head)).keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in named_tensors(head))


@settings(max_examples=20)
@given(experts=st.integers(1, 5), width=st.integers(1, 7), hidden=st.integers(1, 6), seed=st.integers(0, 99))
def test_experts_are_stacked_and_taken_apart_without_loss(experts, width, hidden, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, shape in (
        ("gate_up_proj", (experts, 2 * width, hidden)),
        ("down_proj", (experts, hidden, width)),
    ):
        full = f"model.blocks.0.layer.mlp.experts.{name}"
        tensor = torch.randn(shape, generator=generator)
        pieces = dict(_pieces(LAYOUTS["qwen3_next"], full, tensor, 2))
        assert len(pieces) == experts * (2 if name == "gate_up_proj" else 1)
        assert torch.equal(_joined(LAYOUTS["qwen3_next"], full, list(pieces.values())), tensor)


@pytest.mark.parametrize("layout", ["glm4_moe", "deepseek_v3"])
def test_a_routers_bias_stays_in_float32_when_the_head_is_loaded_in_another_type(
    layout, checkpoints, tmp_path
):
    head = read(checkpoints[layout])
    save_head(tmp_path, head)
    config = read_trunk_config(checkpoints[layout])
    loaded = load_head(tmp_path, config, dtype=torch.bfloat16, device="cpu")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    biases = {name: tensor for name, tensor in loaded.named_buffers() if "e_score_correction_bias" in name}
    assert len(biases) == 1
    for name, bias in biases.items():
        assert bias.dtype == torch.float32
        assert torch.equal(bias, dict(head.named_buffers())[name])
        assert not torch.equal(bias, bias.bfloat16().float()), "rounding would show"


@pytest.mark.parametrize("layout", [name for name in LAYOUT_NAMES if LAYOUTS[name].token_first])
def test_the_projection_reads_token_and_hidden_in_the_familys_order(layout, checkpoints):
    head = read(checkpoints[layout])
    name = f"{LAYOUTS[layout].modules(0, SIZES['num_hidden_layers'])['proj']}.weight"
    theirs = load_file(checkpoints[layout] / WEIGHTS_FILE)[name]
    hidden, token = torch.randn(2, SIZES["hidden_size"], generator=torch.Generator().manual_seed(0))
    ours = head.blocks[0].proj(torch.cat([hidden, token]))
    torch.testing.assert_close(ours, theirs @ torch.cat([token, hidden]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_a_native_head_trains_and_is_saved_and_loaded_as_any_other(layout, checkpoints, tmp_path):
    head_dir = equip(checkpoints[layout], tmp_path / "out", depths=DEPTHS)
    trunk = read_trunk_config(tmp_path / "out")
    head = load_head(head_dir, trunk, dtype=torch.float32, device="cpu")
    assert head.config.wiring == LAYOUTS[layout].wiring
    sum(z.square().mean() for z in head(*random_inputs())).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
    save_head(tmp_path / "again", head)
    again = load_head(tmp_path / "again", trunk, dtype=torch.float32, device="cpu")
    assert again.config.to_json() == head.config.to_json()
    for (_, tensor), (_, expected) in zip(named_tensors(again), named_tensors(head), strict=True):
        assert torch.equal(tensor, expected)


def native_chain(layout, native, hidden, embeddings, layer, rotary, norm):
    """z^1, z^2 at the last anchor, by the tensors under their native names: an engine's two steps without a cache."""
    facts = LAYOUTS[layout]
    names = facts.modules(0, SIZES["num_hidden_layers"])

    def normed(x, which):
        module = norm()
        module.load_state_dict({"weight": native[f"{names[which]}.weight"]})
        return module(x)

    def run(states, tokens, positions):
        if facts.wiring.hides_first_token:
            tokens = torch.where(positions[:, None] == 0, 0.0, tokens)
        pair = [normed(tokens, "token_norm"), normed(states, "hidden_norm")]
        mixed = torch.cat(pair if facts.token_first else pair[::-1], -1) @ native[f"{names['proj']}.weight"].T
        mask = torch.full((len(mixed), len(mixed)), float("-inf")).triu(1)[None, None]
        rotation = rotary(mixed[None], positions[None])
        return layer(mixed[None], attention_mask=mask, position_embeddings=rotation)[0]

    length = len(hidden)
    out = run(hidden, embeddings[0], torch.arange(length))
    first = normed(out, "final_norm")[-1]
    passed = (out if facts.wiring.chains_unnormed else normed(out, "final_norm"))[-1:]
    deeper = run(
        torch.cat([hidden, passed]),
        torch.cat([embeddings[0], embeddings[1][-1:]]),
        torch.arange(length + 1),
    )
    return first, normed(deeper, "final_norm")[-1]


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_the_chain_computes_what_the_native_names_mean(layout, checkpoints):
    head = read(checkpoints[layout])
    native = load_file(checkpoints[layout] / WEIGHTS_FILE)
    hidden, embeddings, positions, segments, _ = random_inputs(batch=1)
    family, config = head.config.family, head.config.model
    config._attn_implementation = "eager"
    expected = native_chain(
        layout,
        native,
        hidden[0],
        [e[0] for e in embeddings],
        head.blocks[0].layer,
        rotary_class(family)(config),
        lambda: norm_class(family)(config.hidden_size, config.rms_norm_eps),
    )
    states = head(hidden, embeddings, positions, segments, 2)
    for z, z_expected in zip(states, expected, strict=True):
        torch.testing.assert_close(z[0, -1], z_expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_without_a_head_gets_a_new_one(damaged):
    folder = damaged(lambda tensors: [tensors.pop(n) for n in list(tensors) if "mtp" in n])
    assert read(folder) is None


def test_a_fresh_head_can_be_asked_for(checkpoints, tmp_path):
    head_dir = equip(checkpoints["mimo"], tmp_path / "out", depths=DEPTHS, fresh=True)
    assert "layout" not in json.loads((head_dir / "config.json").read_text())["mtp"]
    # vLLM's MiMo class hands over states before the final norm, which a head of our own does not read
    policy = json.loads((tmp_path / "out" / "config.json").read_text())
    assert policy["architectures"] == ["Qwen2ForCausalLM"]


def test_remote_code_is_not_needed_for_mimo(checkpoints, tmp_path):
    source = tmp_path / "mimo"
    source.mkdir()
    content = json.loads((checkpoints["mimo"] / "config.json").read_text())
    remote = {"model_type": "mimo", "auto_map": {"AutoConfig": "configuration_mimo.MiMoConfig"}}
    (source / "config.json").write_text(json.dumps({**content, **remote}))
    (source / WEIGHTS_FILE).write_bytes((checkpoints["mimo"] / WEIGHTS_FILE).read_bytes())
    with pytest.raises(FileExistsError, match="must not happen in place; give another folder as --out"):
        equip(source, source, depths=DEPTHS)
    assert not (source / "mtp").exists()
    equip(source, tmp_path / "out", depths=DEPTHS)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["model_type"], written["architectures"]) == ("qwen2", ["MiMoForCausalLM"])
    assert "auto_map" not in written


def test_missing_unknown_and_misshaped_tensors_are_all_named_with_both_sides(damaged):
    prefix = "model.mtp_layers.0"

    def change(tensors):
        del tensors[f"{prefix}.final_layernorm.weight"]
        tensors[f"{prefix}.input_proj.weight"] = torch.zeros(3, 5)
        tensors[f"{prefix}.extra.weight"] = torch.zeros(7)

    with pytest.raises(HeadMismatch) as refusal:
        read(damaged(change))
    text, width = str(refusal.value), SIZES["hidden_size"]
    assert "is not one of the layout mimo" in text
    assert f"{prefix}.final_layernorm.weight: missing in the file, expected shape [{width}]" in text
    assert f"{prefix}.input_proj.weight: shape [3, 5] in the file, expected [{width}, {2 * width}]" in text
    assert f"{prefix}.extra.weight: shape [7] in the file, the head has no such tensor" in text


def test_a_second_block_that_no_engine_runs_is_refused(damaged):
    def add(tensors):
        for name in [n for n in tensors if "mtp_layers.0" in n]:
            tensors[name.replace("layers.0", "layers.1")] = tensors[name].clone()

    with pytest.raises(HeadMismatch, match="got 2 MTP blocks, expected 1 in the layout mimo"):
        read(damaged(add))


def test_a_truncated_checkpoint_is_refused(checkpoints, tmp_path):
    for path in checkpoints["mimo"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedCheckpoint, match="cannot be read as safetensors"):
        read(tmp_path)


def test_a_head_that_cannot_be_trained_says_what_it_would_need():
    class Trunk:
        model_type, num_hidden_layers = "deepseek_v32", 61

    with pytest.raises(ValueError, match="sparse latent attention over an indexer's choice"):
        find_layout(Trunk, {"model.layers.61.eh_proj.weight"})


def test_a_head_written_with_an_unknown_layout_is_refused():
    content = HeadConfig.from_trunk(read_trunk_config_of("mimo"), depths=2, layout="mimo").to_json()
    content["mtp"]["layout"] = "tomorrow"
    with pytest.raises(ValueError, match="got 'tomorrow', expected one of mimo"):
        HeadConfig.from_json(content, source="config.json")


def read_trunk_config_of(layout):
    from transformers import AutoConfig

    return AutoConfig.for_model(**{**SIZES, **NATIVES[layout]})


def test_hiding_the_first_token_changes_only_what_reads_it():
    config = read_trunk_config_of("mimo")
    torch.manual_seed(0)
    hidden, embeddings, positions, segments, _ = random_inputs()
    head = MTPHead(HeadConfig.from_trunk(config, depths=DEPTHS, layout="mimo"))
    other = [embeddings[0].clone(), *embeddings[1:]]
    other[0][:, 0] += 1.0
    before, after = (head(hidden, e, positions, segments, DEPTHS) for e in (embeddings, other))
    for z, expected in zip(after, before, strict=True):
        assert torch.equal(z, expected)
