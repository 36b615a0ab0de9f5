"""The task of the study `replay`: what the teacher writes is rewarded, and a mistake anywhere in it is not."""

import json
import random
import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "studies"))

from worked.base_policy import BATCH, GROUP, Lessons, byte_tokenizer
from worked.problems import SHARES, Problem, problems, solution
from worked.prompts import write_data
from worked.reward import grade, reward_func

SUM = Problem("sum", "25-20+30", 35)
EQUATION = Problem("equation", "7x+23=3x+51", 7)
COUNTDOWN = Problem("countdown", "2,6,7:28", 28)


def test_the_data_files_hold_prompts_and_rules_of_their_side(tmp_path):
    write_data(tmp_path, train=20, evaluation=10, seed=1)
    for name, count, held_out in (("train", 20, False), ("eval", 10, True)):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        expected = list(islice(problems(1, held_out=held_out), count))
        assert rows == [{"input": each.prompt, "label": each.label} for each in expected]


def test_every_solution_of_the_teacher_earns_the_reward():
    rng = random.Random(3)
    seen = dict.fromkeys(SHARES, 0)
    for each in islice(problems(5, held_out=False), 400):
        seen[each.family] += 1
        written = solution(each, rng)
        assert grade(written, each.label) == 1.0, (each, written)
        assert len(each.prompt + written) < 128, "fits the context with room to spare"
    assert min(seen.values()) > 50, seen


@pytest.mark.parametrize(
    ("problem", "response", "reward"),
    [
        (SUM, "25-20=5;5+30=35.", 1.0),
        (SUM, "25-20=5;5+30=36.", 0.0),
        (SUM, "25-20=6;6+30=36.", 0.0),
        (SUM, "25+10=35.", 0.0),
        (SUM, "25-20=5;5+30=35", 0.0),
        (EQUATION, "4x+23=51;4x=28;x=7.", 1.0),
        (EQUATION, "4x+23=51;4x=28;x=8.", 0.0),
        (COUNTDOWN, "6+7=13;13-2=11?6-2=4;4*7=28.", 1.0),
        (COUNTDOWN, "6+7=99;nonsense?6-2=4;4*7=28.", 1.0),
        (COUNTDOWN, "6-2=4;4*7=29.", 0.0),
        (COUNTDOWN, "2*7=14;14+14=28.", 0.0),
        (COUNTDOWN, "6-2=4;7*4=28.", 0.0),
        (COUNTDOWN, "6-2=4;4*7=28?", 0.0),
        (COUNTDOWN, "", 0.0),
        (COUNTDOWN, ".", 0.0),
        (SUM, "\ufffd=;.", 0.0),
    ],
)
def test_a_response_is_right_from_its_first_step_to_its_end(problem, response, reward):
    assert grade(response, problem.label) == reward


def test_what_follows_the_prompt_is_graded_without_the_tokens_after_its_end():
    query = SUM.prompt + "25-20=5;5+30=35.<eos><pad>"
    assert reward_func([query], [SUM.prompt], [SUM.label])["rewards"].tolist() == [1.0]


def test_held_out_problems_are_no_training_problems():
    training = {each.prompt for each in islice(problems(1, held_out=False), 2000)}
    assert not training & {each.prompt for each in islice(problems(1, held_out=True), 500)}


def test_lessons_are_a_function_of_their_number_and_teach_the_responses_alone():
    tokenizer = byte_tokenizer.build()
    lessons = Lessons(tokenizer, seed=3)
    texts = []
    for step in range(GROUP):
        ids, labels = lessons.batch(step)
        assert ids.equal(lessons.batch(step)[0])
        assert len(ids) == BATCH
        for row, wanted in zip(ids.tolist(), labels.tolist(), strict=True):
            page = tokenizer.decode([token for token in row if token != tokenizer.pad_token_id])
            prompt, response = page.split("\n")
            assert tokenizer.decode([token for token in wanted if token != -100]) == response
            texts.append(prompt)
    assert len(set(texts)) > 0.9 * BATCH * GROUP, "the batches of a group share no problem but by chance"
