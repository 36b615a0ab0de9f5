"""The arithmetic example: its parts agree with each other, and its reward survives anything a model can write."""

import json
import random
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = Path(__file__).parents[2] / "examples" / "arithmetic"
sys.path.insert(0, str(EXAMPLE))

import byte_tokenizer  # noqa: E402
from make_data import make_data  # noqa: E402
from problems import Problem, guessed, problems, worked  # noqa: E402
from reward import answer_of, reward_func  # noqa: E402

numbers = st.builds(Problem, st.integers(0, 999), st.integers(0, 999))


def test_the_worked_steps_are_those_of_the_description():
    problem = Problem(347, 285)
    assert problem.prompt == "347+285=....\n"
    assert worked(problem) == "347+285=..12\n347+285=.132\n347+285=0632"


@given(numbers)
def test_working_it_out_is_always_right(problem):
    assert answer_of(problem.prompt + worked(problem), problem.prompt) == problem.answer


@given(numbers, st.integers())
def test_a_guess_has_the_form_of_an_answer(problem, seed):
    answer = answer_of(guessed(problem, random.Random(seed)), "")
    assert 0 <= int(answer) <= 1998


def test_no_problem_is_on_both_sides_of_the_split():
    held_out, taught = (set(islice(problems(3, held_out=side), 2000)) for side in (True, False))
    assert not held_out & taught


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("347+285=0632<eos>", "632"),
        ("347+285=0632<eos><pad><pad>", "632"),
        ("000+000=0000", "0"),
        ("347+285=.632", None),
        ("347+285=", None),
        ("347+285=0632\n", None),
        ("632", None),
        ("=٣٢", None),
        ("", None),
    ],
)
def test_only_a_number_after_the_last_equals_sign_is_an_answer(response, answer):
    assert answer_of("347+285=....\n" + response, "347+285=....\n") == answer


def test_rewards_have_the_form_openrlhf_reads():
    prompt = "347+285=....\n"
    result = reward_func(
        [prompt + "347+285=0632<eos>", prompt + "347+285=0633<eos>", prompt], [prompt] * 3, ["632"] * 3
    )
    assert result["rewards"].tolist() == result["scores"].tolist() == [1.0, 0.0, 0.0]
    assert result["extra_logs"]["answered"].tolist() == [1.0, 1.0, 0.0]


@given(st.text(), st.text(), st.text())
def test_no_text_makes_the_reward_raise(query, prompt, label):
    assert reward_func([query], [prompt], [label])["rewards"].tolist() in ([0.0], [1.0])


@given(st.text())
def test_the_tokenizer_gives_any_text_back(text):
    tokenizer = byte_tokenizer.build()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert all(1 < token < 258 for token in ids) or byte_tokenizer.EOS in text or byte_tokenizer.PAD in text
    assert tokenizer.decode(ids) == text


def test_the_tokenizer_survives_its_folder(tmp_path):
    from transformers import AutoTokenizer

    byte_tokenizer.build().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.eos_token_id, len(loaded)) == (0, 1, 258)
    ids = loaded("347+285=....\n<eos>")["input_ids"]
    assert len(ids) == 14
    assert ids[-1] == loaded.eos_token_id


def test_the_data_files_hold_prompts_and_labels_of_their_side(tmp_path):
    make_data(tmp_path, train=20, evaluation=10, seed=1)
    train, held_out = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("train.jsonl", "eval.jsonl")
    )
    assert (len(train), len(held_out)) == (20, 10)
    for rows, side in ((train, False), (held_out, True)):
        for row in rows:
            left, right = row["input"].split("=")[0].split("+")
            assert Problem(int(left), int(right)).held_out == side
            assert row["label"] == str(int(left) + int(right))
