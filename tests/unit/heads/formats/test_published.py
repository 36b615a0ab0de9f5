"""A checkpoint with a vision tower: its language model comes out, is changed, and goes back; nothing else changes."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from openrlhf_mtp.heads.formats.accounting import ExportError
from openrlhf_mtp.heads.formats.equip import equip
from openrlhf_mtp.heads.formats.export import NATIVE_FILE, export
from openrlhf_mtp.heads.formats.head_folder import load_head, save_head
from openrlhf_mtp.heads.formats.native import read_trunk_config
from openrlhf_mtp.heads.formats.published import FIELD
from openrlhf_mtp.heads.formats.shards import files_by_tensor, read_tensors, write_index
from tests.natives import NATIVES, write_native_checkpoint
from tests.unit.heads.tiny import DEPTHS, SIZES

VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": SIZES["hidden_size"],
    "patch_size": 4,
    "num_position_embeddings": 16,
}


def write_published(folder, scratch, *, tied=False, sharded=False):
    """A tiny Qwen3.5 as it is published: text model, vision tower, MTP head, and an image processor's file."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3_5",
        text_config={**SIZES, **NATIVES["qwen3_5"], "tie_word_embeddings": tied},
        vision_config=VISION,
        tie_word_embeddings=tied,
    )
    AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    write_native_checkpoint(scratch, "qwen3_5", SIZES)
    head = {
        n: t.bfloat16() for n, t in load_file(scratch / "model.safetensors").items() if n.startswith("mtp.")
    }
    tensors = load_file(folder / "model.safetensors")
    if sharded:
        (folder / "model.safetensors").unlink()
        save_file(tensors, folder / "model-00001.safetensors", {"format": "pt"})
        save_file(head, folder / "model-00002.safetensors", {"format": "pt"})
        write_index(
            folder,
            {
                **dict.fromkeys(tensors, "model-00001.safetensors"),
                **dict.fromkeys(head, "model-00002.safetensors"),
            },
        )
    else:
        save_file({**tensors, **head}, folder / "model.safetensors", {"format": "pt"})
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


@pytest.fixture(params=["one file", "tied", "sharded"])
def published(request, tmp_path):
    kinds = {"tied": request.param == "tied", "sharded": request.param == "sharded"}
    return write_published(tmp_path / "published", tmp_path / "scratch", **kinds)


def every_tensor(folder):
    return read_tensors(folder, files_by_tensor(folder))


def trained(policy_dir, head_dir, out):
    """Policy and head after an update, the policy saved as a trainer saves it."""
    policy = AutoModelForCausalLM.from_pretrained(policy_dir, dtype=torch.bfloat16)
    head = load_head(head_dir, policy.config, dtype=torch.bfloat16, device="cpu")
    with torch.no_grad():
        for module in (policy, head):
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
    policy.save_pretrained(out)
    save_head(out / "mtp", head)
    return out


def test_the_text_model_computes_what_the_whole_one_does_on_text(published, tmp_path):
    equip(published, tmp_path / "out", depths=DEPTHS)
    whole = AutoModelForImageTextToText.from_pretrained(published)
    text = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(text).__name__ == "Qwen3_5ForCausalLM"
    assert not hasattr(text.config, "vision_config")
    tokens = torch.randint(SIZES["vocab_size"], (2, 9))
    with torch.no_grad():
        assert torch.equal(text(tokens).logits, whole(tokens).logits)


def test_the_head_comes_from_the_published_names(published, tmp_path):
    head_dir = equip(published, tmp_path / "out", depths=DEPTHS)
    head = load_head(head_dir, read_trunk_config(tmp_path / "out"), dtype=torch.bfloat16, device="cpu")
    token, hidden = every_tensor(published)["mtp.fc.weight"].chunk(2, dim=1)
    assert torch.equal(head.blocks[0].proj.weight, torch.cat([hidden, token], dim=1))


def test_an_untrained_round_trip_gives_every_published_tensor_back(published, tmp_path):
    head_dir = equip(published, tmp_path / "equipped", depths=DEPTHS)
    export(tmp_path / "equipped", head_dir, tmp_path / "out", "native")
    before, after = every_tensor(published), every_tensor(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_trained_policy_goes_back_into_what_it_was_taken_out_of(published, tmp_path):
    head_dir = equip(published, tmp_path / "equipped", depths=DEPTHS)
    final = trained(tmp_path / "equipped", head_dir, tmp_path / "final")
    rows = export(final, final / "mtp", tmp_path / "out", "native")
    before, after = every_tensor(published), every_tensor(tmp_path / "out")
    assert before.keys() == after.keys() == {row.name for row in rows}
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == name.startswith("model.visual."), name
    assert {row.source for row in rows} == {"policy", "head", "published"}
    assert {row.name for row in rows if row.file == NATIVE_FILE} == {n for n in after if n.startswith("mtp.")}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3_5ForConditionalGeneration"]
    assert config["text_config"]["mtp_num_hidden_layers"] == 1
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    tokens = torch.randint(SIZES["vocab_size"], (1, 9))
    with torch.no_grad():
        text = AutoModelForCausalLM.from_pretrained(final)
        assert torch.equal(whole(tokens).logits, text(tokens).logits)


def test_a_published_checkpoint_that_moved_must_be_named(published, tmp_path):
    head_dir = equip(published, tmp_path / "equipped", depths=DEPTHS)
    moved = published.rename(tmp_path / "moved")
    with pytest.raises(ExportError, match=r"its vision tower is in .*published, which is not there"):
        export(tmp_path / "equipped", head_dir, tmp_path / "out", "native")
    export(tmp_path / "equipped", head_dir, tmp_path / "found", "native", moved)
    assert every_tensor(tmp_path / "found").keys() == every_tensor(moved).keys()


def test_another_published_checkpoint_is_refused(tmp_path):
    first = write_published(tmp_path / "first", tmp_path / "scratch")
    head_dir = equip(first, tmp_path / "equipped", depths=DEPTHS)
    tensors = load_file(first / "model.safetensors")
    del tensors["model.language_model.norm.weight"]
    save_file(tensors, first / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match=r"absent none; unknown model\.norm\.weight"):
        export(tmp_path / "equipped", head_dir, tmp_path / "out", "native")


def test_a_whole_model_takes_no_published_one(tmp_path):
    write_native_checkpoint(tmp_path / "source", "qwen3_5", SIZES)
    head_dir = equip(tmp_path / "source", tmp_path / "out", depths=DEPTHS)
    with pytest.raises(ExportError, match=f"its config.json has no {FIELD}"):
        export(tmp_path / "out", head_dir, tmp_path / "exported", "native", tmp_path / "source")


def test_a_language_model_is_not_taken_out_in_place(tmp_path):
    folder = write_published(tmp_path / "published", tmp_path / "scratch")
    with pytest.raises(FileExistsError, match="must not happen in place"):
        equip(folder, folder, depths=DEPTHS)


def test_other_vision_models_are_refused(tmp_path):
    folder = write_published(tmp_path / "published", tmp_path / "scratch")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_vl"}))
    with pytest.raises(ValueError, match=r"model_type: got 'qwen3_vl'"):
        equip(folder, tmp_path / "out", depths=DEPTHS)
