"""Before the start: tokens without a row, a tokenizer that cannot pad, an end token at which nothing ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrlhf_mtp.config.tokenizer_files import end_tokens, has_chat_template, read_tokenizer

ROWS = 100
"""Rows of the embedding of the policy in `folder`."""
Problems = Callable[..., list[str]]


def write(folder: Path, tokens: int, added: dict[str, int], **roles: Any) -> None:
    """A tokenizer of `tokens` words and some added tokens; its roles in `tokenizer_config.json`."""
    content = {
        "added_tokens": [{"id": token, "content": text} for text, token in added.items()],
        "model": {"type": "WordLevel", "vocab": {f"w{number}": number for number in range(tokens)}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))


def about_the_tokenizer(problems: Problems) -> list[str]:
    return [text for text in problems() if "actor.model_name_or_path" in text]


def test_a_vocabulary_smaller_than_the_embedding_is_right(folder: Path, problems: Problems) -> None:
    write(folder / "policy", 80, {"<eos>": 80}, eos_token="<eos>")
    assert about_the_tokenizer(problems) == []


@pytest.mark.parametrize("entry", ["<pad>", {"content": "<pad>", "special": True}])
def test_a_padding_token_beyond_the_embedding_is_refused(
    folder: Path, problems: Problems, entry: object
) -> None:
    write(folder / "policy", ROWS, {"<pad>": ROWS}, eos_token="w3", pad_token=entry)
    (text,) = about_the_tokenizer(problems)
    assert text.startswith("error: ")
    assert "has pad_token <pad> = 100, and the embedding has 100 rows" in text


def test_another_token_beyond_the_embedding_is_a_warning(folder: Path, problems: Problems) -> None:
    write(folder / "policy", ROWS, {"<image>": ROWS + 3}, eos_token="w3")
    (text,) = about_the_tokenizer(problems)
    assert text.startswith("warning: ")
    assert "tokens up to 103 (<image>)" in text


def test_tokens_that_the_tokenizers_config_adds_count(folder: Path, problems: Problems) -> None:
    decoder = {"100": {"content": "<pad>"}}
    write(folder / "policy", ROWS, {}, eos_token="w3", pad_token="<pad>", added_tokens_decoder=decoder)
    (text,) = about_the_tokenizer(problems)
    assert "has pad_token <pad> = 100" in text


def test_a_tokenizer_that_cannot_pad_is_refused(folder: Path, problems: Problems) -> None:
    write(folder / "policy", 80, {})
    (text,) = about_the_tokenizer(problems)
    assert "names neither pad_token nor eos_token" in text


def test_a_policy_without_an_end_token_is_warned_about(folder: Path, problems: Problems) -> None:
    write(folder / "policy", 80, {}, pad_token="w0")
    (text,) = about_the_tokenizer(problems)
    assert "every response is cut at its limit" in text


def test_an_end_token_that_only_config_json_knows_is_warned_about(folder: Path, problems: Problems) -> None:
    policy = folder / "policy"
    write(policy, 80, {"<turn>": 81, "<eos>": 80}, eos_token="<eos>")
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps({**config, "eos_token_id": [80, 81]}))
    assert about_the_tokenizer(problems) == []
    (policy / "generation_config.json").write_text('{"eos_token_id": 80}')
    (text,) = about_the_tokenizer(problems)
    assert "config.json has the end token 81 (<turn>)" in text


@pytest.mark.parametrize(
    ("generation", "expected"),
    [(None, {3, 7, 8}), ({}, {3}), ({"eos_token_id": 9}, {3, 9}), ({"eos_token_id": [9, 3, 10]}, {3, 9, 10})],
)
def test_the_end_tokens_are_those_that_the_engine_reads(
    tmp_path: Path, generation: dict[str, Any] | None, expected: set[int]
) -> None:
    write(tmp_path, 20, {}, eos_token="w3")
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    found = end_tokens(tmp_path, read_tokenizer(tmp_path), {"eos_token_id": [7, 8]})
    assert found == expected


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": {"vocab": [1]}}', '{"added_tokens": [{}]}'])
def test_a_file_that_is_no_tokenizer_is_not_judged(tmp_path: Path, content: str) -> None:
    assert read_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text(content)
    assert read_tokenizer(tmp_path) is None


def test_a_unigram_vocabulary_is_a_list(tmp_path: Path) -> None:
    model = {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer is not None
    assert tokenizer.last == ("b", 1)


def test_a_chat_template_is_a_file_or_an_entry(tmp_path: Path) -> None:
    assert not has_chat_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert has_chat_template(tmp_path)


def test_a_penalty_longer_than_a_response_is_refused(problems: Problems) -> None:
    (text,) = problems("reward.overlong_buffer_len=33")
    assert "reward.overlong_buffer_len: got 33" in text
    assert "at most rollout.max_new_tokens = 32" in text
    assert problems("reward.overlong_buffer_len=32") == []
