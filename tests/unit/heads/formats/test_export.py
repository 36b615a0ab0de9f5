"""Exports: whole, bit for bit, listed; and refused when anything is left out, cut off or does not belong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from openrlhf_mtp.config.native_layouts import LAYOUTS
from openrlhf_mtp.heads.formats import export as exporting
from openrlhf_mtp.heads.formats.accounting import ExportError, Planned, account
from openrlhf_mtp.heads.formats.equip import equip
from openrlhf_mtp.heads.formats.export import FORMATS, NATIVE_FILE, TRUNK_FILE, export
from openrlhf_mtp.heads.formats.head_folder import HeadMismatch, load_head, named_tensors, save_head
from openrlhf_mtp.heads.formats.native import read_native, read_trunk_config
from openrlhf_mtp.heads.formats.policy_files import LIST_FILE
from openrlhf_mtp.heads.formats.shards import (
    INDEX_FILE,
    WEIGHTS_FILE,
    DamagedCheckpoint,
    StoredTensor,
    files_by_tensor,
    header,
    read_tensors,
    stored_as,
    write_file,
)
from tests.natives import write_native_checkpoint
from tests.unit.heads.tiny import DEPTHS, SIZES, random_head, trunk_config


@pytest.fixture(scope="module")
def natives(tmp_path_factory):
    """Layout -> an equipped folder: the policy with its own head in its files, and the same head in mtp/."""
    root = tmp_path_factory.mktemp("natives")
    for layout in LAYOUTS:
        write_native_checkpoint(root / layout / "source", layout, SIZES)
        equip(root / layout / "source", root / layout / "out", depths=DEPTHS)
    return {layout: root / layout / "out" for layout in LAYOUTS}


@pytest.fixture(scope="module")
def grafted(tmp_path_factory):
    """A sharded Qwen2 policy with a fresh head and a tokenizer file."""
    folder = tmp_path_factory.mktemp("grafted") / "policy"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(trunk_config("qwen2")).save_pretrained(folder, max_shard_size="10KB")
    (folder / "tokenizer.json").write_text("{}")
    equip(folder, folder, depths=DEPTHS)
    return folder


def every_tensor(folder):
    return read_tensors(folder, files_by_tensor(folder))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_native_export_is_the_checkpoint_the_head_came_from(layout, natives, tmp_path):
    written = export(natives[layout], natives[layout] / "mtp", tmp_path / "out", "native")
    source, out = every_tensor(natives[layout]), every_tensor(tmp_path / "out")
    assert out.keys() == source.keys() == {tensor.name for tensor in written}
    assert all(torch.equal(out[name], tensor) for name, tensor in source.items())
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    assert content[LAYOUTS[layout].count_field] == 1
    assert (
        content["architectures"] == json.loads((natives[layout] / "config.json").read_text())["architectures"]
    )


def test_a_policy_that_lost_its_head_in_training_gets_the_trained_one_back(natives, tmp_path):
    # what OpenRLHF saves: transformers' own model, without tensors that transformers does not know
    AutoModelForCausalLM.from_pretrained(natives["mimo"], dtype="auto").save_pretrained(tmp_path / "trained")
    config = read_trunk_config(tmp_path / "trained")
    head = load_head(natives["mimo"] / "mtp", config, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(1.5)
    save_head(tmp_path / "trained" / "mtp", head)
    export(tmp_path / "trained", tmp_path / "trained" / "mtp", tmp_path / "merged", "merged")
    merged = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert merged["architectures"] == ["MiMoForCausalLM"]
    export(tmp_path / "trained", tmp_path / "trained" / "mtp", tmp_path / "out", "native")
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (content["architectures"], content["num_nextn_predict_layers"]) == (["MiMoForCausalLM"], 1)
    again = read_native(tmp_path / "out", read_trunk_config(tmp_path / "out"), depths=DEPTHS)
    for (_, tensor), (_, expected) in zip(named_tensors(again), named_tensors(head), strict=True):
        assert torch.equal(tensor, expected)


def test_an_older_head_in_the_policys_files_is_replaced_and_nothing_else_changes(natives, tmp_path):
    config = read_trunk_config(natives["qwen3_5"])
    head = load_head(natives["qwen3_5"] / "mtp", config, dtype=torch.float32, device="cpu")
    with torch.no_grad():
        head.blocks[0].proj.weight.zero_()
    save_head(tmp_path / "head", head)
    export(natives["qwen3_5"], tmp_path / "head", tmp_path / "out", "native")
    assert not load_file(tmp_path / "out" / NATIVE_FILE)["mtp.fc.weight"].any()
    assert not any(name.startswith("mtp.") for name in load_file(tmp_path / "out" / TRUNK_FILE))
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    before = AutoModelForCausalLM.from_pretrained(natives["qwen3_5"], dtype=torch.float32)
    for (name, tensor), (_, expected) in zip(
        policy.named_parameters(), before.named_parameters(), strict=True
    ):
        assert torch.equal(tensor, expected), name


def test_copies_of_the_policys_own_tensors_follow_the_policy(natives, tmp_path):
    trained = tmp_path / "trained"
    policy = AutoModelForCausalLM.from_pretrained(natives["glm4_moe"], dtype=torch.float32)
    with torch.no_grad():
        policy.lm_head.weight.mul_(2)
    policy.save_pretrained(trained)
    written = export(trained, natives["glm4_moe"] / "mtp", tmp_path / "out", "native")
    out = every_tensor(tmp_path / "out")
    layer = SIZES["num_hidden_layers"]
    assert torch.equal(out[f"model.layers.{layer}.shared_head.head.weight"], policy.lm_head.weight)
    assert {t.source for t in written} == {"policy", "head", "lm_head.weight", "model.embed_tokens.weight"}


def test_a_draft_folder_is_the_head_alone(grafted, tmp_path):
    written = export(grafted, grafted / "mtp", tmp_path / "out", "draft-folder")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", WEIGHTS_FILE, LIST_FILE}
    for name in ("config.json", WEIGHTS_FILE):
        assert (tmp_path / "out" / name).read_bytes() == (grafted / "mtp" / name).read_bytes()
    assert {tensor.source for tensor in written} == {"head"}


def test_a_merged_folder_is_what_equip_makes(grafted, tmp_path):
    written = export(grafted, grafted / "mtp", tmp_path / "out", "merged")
    files = {str(p.relative_to(grafted)): p.read_bytes() for p in grafted.rglob("*") if p.is_file()}
    assert INDEX_FILE in files
    for name, content in files.items():
        assert (tmp_path / "out" / name).read_bytes() == content, name
    assert {tensor.file for tensor in written} >= {f"mtp/{WEIGHTS_FILE}"}


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_is_stopped_has_no_list_and_no_part_of_a_file(format, natives, tmp_path, monkeypatch):
    """Whatever is written when the disk is full is whole or not there."""
    source, out = natives["mimo"], tmp_path / "out"
    replace, left = Path.replace, iter(range(2))

    def full_disk(partial, target):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        return replace(partial, target)

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        export(source, source / "mtp", out, format)
    names = {path.name for path in out.rglob("*") if path.is_file()}
    assert len(names) == 2
    assert LIST_FILE not in names
    assert not [name for name in names if "partial" in name]


@pytest.mark.parametrize("format", FORMATS)
def test_the_list_of_an_export_names_every_tensor_in_its_files(format, natives, tmp_path):
    out = tmp_path / "out"
    export(natives["mimo"], natives["mimo"] / "mtp", out, format)
    record = json.loads((out / LIST_FILE).read_text())
    listed = {(row["file"], row["name"], tuple(row["shape"])) for row in record["tensors"]}
    lying = {
        (str(path.relative_to(out)), name, tuple(tensor.shape))
        for path in out.rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    assert (record["format"], listed) == (format, lying)


def test_a_head_of_our_own_has_no_native_form(grafted, tmp_path):
    with pytest.raises(ExportError, match="its math is our own: export it as draft-folder or merged"):
        export(grafted, grafted / "mtp", tmp_path / "out", "native")


def test_a_tensor_that_a_writer_leaves_out_is_an_error(natives, tmp_path, monkeypatch):
    def forgetful(path, tensors):
        save_file({name: t for name, t in tensors.items() if name != "mtp.norm.weight"}, path)

    monkeypatch.setattr(exporting, "write_file", forgetful)
    with pytest.raises(ExportError, match=r"mtp\.norm\.weight: left out of"):
        export(natives["qwen3_next"], natives["qwen3_next"] / "mtp", tmp_path / "out", "native")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_plan_says_of_a_tensor_what_its_file_will(dtype, tmp_path):
    tensor = torch.zeros(2, 3, dtype=dtype)
    save_file({"a": tensor}, tmp_path / "x.safetensors")
    assert header(tmp_path / "x.safetensors") == {"a": stored_as(tensor)}


def test_a_tied_policy_has_no_output_head_that_a_native_head_could_repeat(natives, tmp_path):
    folder = tmp_path / "tied"
    shutil.copytree(natives["glm4_moe"], folder)
    file = folder / files_by_tensor(folder)["lm_head.weight"]
    write_file(file, {name: t for name, t in load_file(file).items() if name != "lm_head.weight"})
    (folder / INDEX_FILE).unlink(missing_ok=True)
    with pytest.raises(ExportError, match=r"got no lm_head\.weight, .* export as draft-folder or merged"):
        export(folder, folder / "mtp", tmp_path / "out", "native")


def test_accounting_lists_everything_that_is_wrong(tmp_path):
    right = torch.arange(6.0).view(2, 3)
    save_file({"a": right, "b": right + 1, "stray": right + 2}, tmp_path / "x.safetensors")
    stored = StoredTensor((2, 3), "F32")
    plan = [
        Planned("x.safetensors", "a", StoredTensor((3, 2), "F32"), "head"),
        Planned("x.safetensors", "b", stored, "head", right),
        Planned("x.safetensors", "lost", stored, "policy"),
    ]
    with pytest.raises(ExportError) as refusal:
        account(tmp_path, plan)
    text = str(refusal.value)
    assert "a: shape [2, 3] F32 in x.safetensors, expected [3, 2] F32" in text
    assert "b: other values in x.safetensors than in its source" in text
    assert "lost: left out of x.safetensors" in text
    assert "stray: in x.safetensors, from nowhere" in text


def test_a_nan_is_a_value_like_any_other(tmp_path):
    tensor = torch.tensor([float("nan"), -0.0])
    save_file({"a": tensor}, tmp_path / "x.safetensors")
    account(tmp_path, [Planned("x.safetensors", "a", StoredTensor((2,), "F32"), "head", tensor)])


@pytest.mark.parametrize("format", FORMATS)
def test_a_head_of_another_policy_is_refused_with_both_shapes(format, natives, tmp_path):
    save_head(tmp_path / "head", random_head("qwen2"))
    tensors = load_file(tmp_path / "head" / WEIGHTS_FILE)
    tensors["model.blocks.0.proj.weight"] = torch.zeros(4, 8)
    save_file(tensors, tmp_path / "head" / WEIGHTS_FILE)
    width = SIZES["hidden_size"]
    with pytest.raises(HeadMismatch, match=rf"shape \[4, 8\] in the file, expected \[{width}, {2 * width}\]"):
        export(natives["mimo"], tmp_path / "head", tmp_path / "out", format)
    with pytest.raises(HeadMismatch, match="model_type: the head has qwen2, the policy glm4_moe"):
        export(natives["glm4_moe"], tmp_path / "head", tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["native", "merged"])
def test_a_truncated_policy_is_refused(format, natives, tmp_path):
    policy = tmp_path / "policy"
    policy.mkdir()
    for name in ("config.json", WEIGHTS_FILE):
        (policy / name).write_bytes((natives["mimo"] / name).read_bytes())
    content = (policy / WEIGHTS_FILE).read_bytes()
    (policy / WEIGHTS_FILE).write_bytes(content[:-100])
    with pytest.raises(DamagedCheckpoint, match="cannot be read as safetensors"):
        export(policy, natives["mimo"] / "mtp", tmp_path / "out", format)


def test_an_index_that_names_a_tensor_no_file_holds_is_refused(grafted, tmp_path):
    policy = tmp_path / "policy"
    policy.mkdir()
    for path in grafted.iterdir():
        if path.is_file():
            (policy / path.name).write_bytes(path.read_bytes())
    index = json.loads((policy / INDEX_FILE).read_text())
    file = index["weight_map"]["model.norm.weight"]
    index["weight_map"]["model.ghost.weight"] = file
    (policy / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(DamagedCheckpoint, match=f"model.ghost.weight: the index says {file}, which does not"):
        export(policy, grafted / "mtp", tmp_path / "out", "merged")


def test_a_folder_with_files_in_it_is_never_written_into(grafted, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="expected an empty or a new one"):
        export(grafted, grafted / "mtp", tmp_path, "merged")
    with pytest.raises(ExportError, match="got 'onnx', expected one of native, draft-folder, merged"):
        export(grafted, grafted / "mtp", tmp_path / "out", "onnx")


class TestLoRA:
    """OpenRLHF saves the adapter alone."""

    @pytest.fixture
    def adapter(self, grafted, tmp_path):
        from peft import LoraConfig, get_peft_model

        base = AutoModelForCausalLM.from_pretrained(grafted)
        model = get_peft_model(base, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear"))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        folder = tmp_path / "adapter"
        model.save_pretrained(folder)
        model.config.to_json_file(folder / "config.json")
        (folder / "tokenizer.json").write_text("{}")
        tokens = torch.arange(8)[None]
        with torch.no_grad():
            return folder, tokens, model(tokens).logits

    def test_an_adapter_is_merged_into_its_base(self, adapter, grafted, tmp_path):
        folder, tokens, logits = adapter
        export(folder, grafted / "mtp", tmp_path / "out", "merged")
        with torch.no_grad():
            merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(tokens).logits
            base = AutoModelForCausalLM.from_pretrained(grafted)(tokens).logits
        torch.testing.assert_close(merged, logits, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(base, logits, atol=1e-2)
        assert (tmp_path / "out" / "tokenizer.json").is_file()
        assert not (tmp_path / "out" / "adapter_config.json").exists()

    def test_an_adapter_without_its_base_is_refused(self, adapter, grafted, tmp_path):
        folder, _, _ = adapter
        content = json.loads((folder / "adapter_config.json").read_text())
        content["base_model_name_or_path"] = str(tmp_path / "gone")
        (folder / "adapter_config.json").write_text(json.dumps(content))
        with pytest.raises(FileNotFoundError, match=r"names the base model .*gone, which is not there"):
            export(folder, grafted / "mtp", tmp_path / "out", "merged")

    def test_an_adapter_that_lacks_a_tensor_is_refused(self, adapter, grafted, tmp_path):
        folder, _, _ = adapter
        tensors = load_file(folder / "adapter_model.safetensors")
        tensors.pop(next(iter(tensors)))
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(DamagedCheckpoint, match="does not fit its base model"):
            export(folder, grafted / "mtp", tmp_path / "out", "merged")


def test_the_trunks_tensors_are_named_as_transformers_writes_them(grafted):
    config = AutoConfig.from_pretrained(grafted)
    policy = AutoModelForCausalLM.from_config(config)
    assert set(files_by_tensor(grafted)) == set(policy.state_dict())
