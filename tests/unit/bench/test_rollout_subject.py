from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from openrlhf_mtp.bench import rollout_subject
from openrlhf_mtp.config.errors import JobError


def test_without_a_model_or_a_quickstart_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match="run `openrlhf-mtp quickstart` first"):
        rollout_subject.Subject.find(None, None, None)


def test_the_quickstarts_model_comes_with_its_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = rollout_subject.QUICKSTART / "rl" / "final" / "mtp"
    head.mkdir(parents=True)
    (head / "config.json").write_text("{}")
    subject = rollout_subject.Subject.find(None, None, None)
    assert subject.head == head
    assert subject.prompts == rollout_subject.QUICKSTART / "data" / "eval.jsonl"


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such file"):
        rollout_subject.settings_for(rollout_subject.Subject.find(str(tmp_path), None, None), on_cpu=True)


def test_an_ordinary_model_in_place_of_a_head_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mtp").mkdir()
    (tmp_path / "mtp" / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(JobError, match="not a head"):
        rollout_subject.settings_for(rollout_subject.Subject.find(str(tmp_path), None, None), on_cpu=True)


def test_drafts_are_as_deep_as_the_head(tmp_path: Path) -> None:
    (tmp_path / "mtp").mkdir()
    (tmp_path / "mtp" / "config.json").write_text('{"mtp": {"depths": 5, "num_layers": 2}}')
    settings = rollout_subject.settings_for(
        rollout_subject.Subject.find(str(tmp_path), None, None), on_cpu=True
    )
    assert (settings.depths, settings.num_blocks) == (5, 2)
    assert settings.head == str(tmp_path / "mtp")


def test_parameters_are_counted_from_the_files_headers(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(5), "c": torch.zeros(2, 2)}, tmp_path / "two.safetensors")
    assert rollout_subject.count_parameters(tmp_path) == 21
