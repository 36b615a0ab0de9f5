import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from openrlhf_mtp.bench import rollout_table
from openrlhf_mtp.bench.rollout import Comparison, Speed
from openrlhf_mtp.config.errors import JobError

ACCEPTANCE = {
    "spec/mean_acceptance_length": 2.5,
    "spec/acceptance_rate/depth_1": 0.8,
    "spec/acceptance_rate/depth_2": 0.5,
}
ROWS = [Comparison(4, Speed(4, (10.0, 12.0, 20.0), {}), Speed(4, (24.0, 30.0, 36.0), ACCEPTANCE))]
NOTE: dict[str, Any] = {
    "policy": "runs/quickstart/rl/final",
    "parameters": 270_000_000,
    "stand_in": "a stand-in: the policy's distributions at a larger model's cost",
    "device": "CPU, 2 threads",
    "vllm": "0.29.0",
}


def test_the_table_says_what_was_measured_and_that_it_is_a_stand_in() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rollout_table.render(ROWS, NOTE))
    text = console.export_text()
    assert "270M parameters, CPU, 2 threads, vLLM 0.29.0, temperature 1" in text
    assert "a stand-in" in text
    assert "2.50x │ 1.20-3.60" in text
    assert "0.80 0.50" in text


def test_the_record_keeps_every_repeat() -> None:
    record = rollout_table.to_json(ROWS, NOTE)
    json.dumps(record)
    (row,) = record["rows"]
    assert row["plain_tok_s"] == [10.0, 12.0, 20.0]
    assert row["ratio"] == pytest.approx(2.5)
    assert row["spec/mean_acceptance_length"] == 2.5


def test_without_a_model_or_a_quickstart_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JobError, match="run `openrlhf-mtp quickstart` first"):
        rollout_table.Subject.find(None, None, None)


def test_the_quickstarts_model_comes_with_its_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    head = rollout_table.QUICKSTART / "rl" / "final" / "mtp"
    head.mkdir(parents=True)
    (head / "config.json").write_text("{}")
    subject = rollout_table.Subject.find(None, None, None)
    assert subject.head == head
    assert subject.prompts == rollout_table.QUICKSTART / "data" / "eval.jsonl"


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such file"):
        rollout_table.settings_for(rollout_table.Subject.find(str(tmp_path), None, None), on_cpu=True)


def test_an_ordinary_model_in_place_of_a_head_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mtp").mkdir()
    (tmp_path / "mtp" / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(JobError, match="not a head"):
        rollout_table.settings_for(rollout_table.Subject.find(str(tmp_path), None, None), on_cpu=True)


def test_drafts_are_as_deep_as_the_head(tmp_path: Path) -> None:
    (tmp_path / "mtp").mkdir()
    (tmp_path / "mtp" / "config.json").write_text('{"mtp": {"depths": 5, "num_layers": 2}}')
    settings = rollout_table.settings_for(rollout_table.Subject.find(str(tmp_path), None, None), on_cpu=True)
    assert (settings.depths, settings.num_layers) == (5, 2)
    assert settings.head == str(tmp_path / "mtp")


def test_parameters_are_counted_from_the_files_headers(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(5), "c": torch.zeros(2, 2)}, tmp_path / "two.safetensors")
    assert rollout_table.count_parameters(tmp_path) == 21
