"""Prompts of the stage before RL: cut as in RL, and a row without a prompt named before engines start."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("openrlhf")

from openrlhf_mtp.cli.pretrain import tokenized_prompts
from openrlhf_mtp.config.errors import JobError


class Letters:
    """A tokenizer with a token a letter."""

    bos_token_id = None

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(letter) for letter in text]}


@pytest.fixture
def arguments(tmp_path):
    def write(*prompts):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"input": p}) + "\n" for p in prompts))
        data = SimpleNamespace(
            prompt_dataset=str(tmp_path / "rows.jsonl"),
            prompt_probs=None,
            max_samples=100,
            prompt_split="train",
            input_key="input",
            label_key=None,
            input_template=None,
            apply_chat_template=False,
        )
        actor = SimpleNamespace(model_name_or_path=str(tmp_path))
        return SimpleNamespace(data=data, actor=actor, train=SimpleNamespace(seed=0))

    return write


def test_a_prompt_that_is_too_long_loses_its_beginning_and_is_counted(arguments, capsys):
    tokens = tokenized_prompts(arguments("abcdef", "xy"), Letters(), None, room=3)
    assert tokens == [[ord(letter) for letter in "def"], [ord(letter) for letter in "xy"]]
    assert "1 of 2 were cut at the beginning to fit 3 tokens" in capsys.readouterr().err


def test_an_empty_prompt_is_named_by_its_row(arguments):
    with pytest.raises(JobError, match="got no prompt in row 2 of 3"):
        tokenized_prompts(arguments("a", "", "b"), Letters(), None, room=3)
