"""What of a policy's folder goes along into one that is made of it: the model, and nothing of its training."""

import pytest

from openrlhf_mtp.heads.formats import policy_files
from openrlhf_mtp.heads.formats.policy_files import copy_other_files, copy_weights, other_files

MODEL = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
    "modeling_own.py",
    "kernels/__init__.py",
    "assets/figure.png",
    "LICENSE",
    "README.md",
)
LEFT_BEHIND = (
    "model.safetensors",  # weights, which `copy_weights` copies
    "model.safetensors.index.json",
    "consolidated.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model-q4.gguf",
    "original/consolidated.00.pth",
    "optimizer.pt",
    "training_args.bin",
    "trainer_state.json",
    "latest",
    "zero_to_fp32.py",
    "global_step40/zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "global_step40/notes.txt",
    "checkpoint-500/trainer_state.json",
    "checkpoint-500/config.json",
    "runs/Nov30/events.out.tfevents.1",
    "mtp/config.json",
    "export.json",
    ".cache/huggingface/download/config.json.metadata",
    ".config.json.partial",
)


@pytest.fixture
def folder(tmp_path):
    for name in MODEL + LEFT_BEHIND:
        (tmp_path / "policy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "policy" / name).write_text(name)
    return tmp_path / "policy"


def test_the_model_goes_along_and_its_training_does_not(folder, tmp_path):
    (tmp_path / "out").mkdir()
    copy_other_files(folder, tmp_path / "out")
    copied = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert copied == set(MODEL)
    assert all((tmp_path / "out" / name).read_text() == name for name in MODEL)


def test_the_configuration_comes_last(folder):
    """Without one nobody takes a folder for a model."""
    assert list(other_files(folder))[-1] == folder / "config.json"


def test_a_file_that_could_not_be_copied_is_not_there_in_part(folder, tmp_path, monkeypatch):
    def half(source, target):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr("openrlhf_mtp.config.atomic_files.shutil.copyfile", half)
    for copy in (copy_other_files, copy_weights):
        monkeypatch.setattr(policy_files, "files_by_tensor", lambda _: {"a": "model.safetensors"})
        with pytest.raises(OSError, match="No space"):
            copy(folder, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_link_into_the_hubs_cache_becomes_a_file(folder, tmp_path):
    (folder / "vocab.json").symlink_to(folder / "tokenizer.json")
    (tmp_path / "out").mkdir()
    copy_other_files(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "vocab.json").is_symlink()
    assert (tmp_path / "out" / "vocab.json").read_text() == "tokenizer.json"
