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


@pytest.fixture
def chatty(tmp_path: Path) -> Path:
    """A policy's folder whose tokenizer has a chat template and whose generation settings name two end tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<user>": 0, "ask": 1, "<bot>": 2, "?": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}<user> {{ m['content'] }} {% endfor %}<bot>"
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", chat_template=template).save_pretrained(
        tmp_path
    )
    (tmp_path / "config.json").write_text('{"model_type": "llama", "eos_token_id": 2}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    (tmp_path / "prompts.jsonl").write_text('{"input": "ask"}\n')
    return tmp_path


@pytest.mark.parametrize(("chat_template", "tokens"), [(True, [0, 1, 2]), (False, [1])])
def test_given_prompts_get_the_chat_template_unless_told_not_to(
    chatty: Path, chat_template: bool, tokens: list[int]
) -> None:
    subject = rollout_subject.Subject.find(str(chatty), None, chatty / "prompts.jsonl")
    workload = rollout_subject.make_workload(
        subject, max_new_tokens=4, repeats=1, chat_template=chat_template
    )
    assert workload.prompts == [tokens]


def test_a_conversation_is_a_prompt_where_there_is_a_chat_template(chatty: Path) -> None:
    turns = '[{"role": "user", "content": "ask"}, {"role": "user", "content": "ask"}]'
    (chatty / "prompts.jsonl").write_text(f'{{"input": {turns}}}\n')
    subject = rollout_subject.Subject.find(str(chatty), None, chatty / "prompts.jsonl")
    workload = rollout_subject.make_workload(subject, max_new_tokens=4, repeats=1)
    assert workload.prompts == [[0, 1, 0, 1, 2]]
    with pytest.raises(JobError, match="no chat template"):
        rollout_subject.make_workload(subject, max_new_tokens=4, repeats=1, chat_template=False)


def test_every_end_token_of_the_generation_settings_ends_a_response(chatty: Path) -> None:
    subject = rollout_subject.Subject.find(str(chatty), None, None)
    workload = rollout_subject.make_workload(subject, max_new_tokens=4, repeats=1)
    assert workload.stop_token_ids == [2, 0]


def test_the_precision_of_the_engine_is_the_given_one(chatty: Path) -> None:
    (chatty / "mtp").mkdir()
    (chatty / "mtp" / "config.json").write_text('{"mtp": {"depths": 3, "num_layers": 1}}')
    subject = rollout_subject.Subject.find(str(chatty), None, None)
    settings = rollout_subject.settings_for(subject, on_cpu=True, dtype="float32")
    assert settings.rollout.dtype == "float32"
