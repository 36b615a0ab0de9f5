"""Verifiable reward: 1 for a right answer that is worked out, else 0.

Every step that is written must be a true equation, and the last one must give the answer; a countdown's last try must
use each number once. OpenRLHF loads this file by its path (`reward.remote_url`) and calls `reward_func` with the
decoded texts; `labels` are those of `problems.Problem.label`. It must not raise on any text a model can write.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import torch

AFTER_THE_END = ("<eos>", "<pad>")
STEP = re.compile(r"(\d{1,3})([+*-])(\d{1,3})=(\d{1,4})")
DONE = re.compile(r"x=(\d{1,3})\.")


def is_true(step: str) -> bool:
    """Whether a text is one true equation of two numbers.

    >>> is_true("3+4=7"), is_true("3+4=8"), is_true("3+4=")
    (True, False, False)
    """
    match = STEP.fullmatch(step)
    if match is None:
        return False
    left, right = int(match[1]), int(match[3])
    return {"+": left + right, "-": left - right, "*": left * right}[match[2]] == int(match[4])


def solves_sum(response: str, rules: dict[str, Any]) -> bool:
    """Each line goes on from the last result with the next term."""
    if not response.endswith("."):
        return False
    words = rules["text"].replace("+", " +").replace("-", " -").split()
    total, lines = words[0], response[:-1].split(";")
    if len(lines) != len(words) - 1:
        return False
    for line, word in zip(lines, words[1:], strict=True):
        if not line.startswith(f"{total}{word}=") or not is_true(line):
            return False
        total = line.rpartition("=")[2]
    return True


def solves_equation(response: str, rules: dict[str, Any]) -> bool:
    """The last line names x."""
    match = DONE.fullmatch(response.rpartition(";")[2])
    return match is not None and int(match[1]) == rules["answer"]


def solves_countdown(response: str, rules: dict[str, Any]) -> bool:
    """The last try is true, uses each number once and gives the target; the tries before it are free."""
    steps = response.rpartition("?")[2]
    if not steps.endswith(".") or not all(map(is_true, lines := steps[:-1].split(";"))) or len(lines) != 2:
        return False
    first, second = (STEP.fullmatch(line) for line in lines)
    assert first is not None, "is_true has matched it"
    assert second is not None, "is_true has matched it"
    numbers = sorted([int(first[1]), int(first[3]), int(second[3])])
    given = sorted(map(int, rules["text"].split(":")[0].split(",")))
    return numbers == given and first[4] == second[1] and int(second[4]) == rules["answer"]


SOLVES = {"sum": solves_sum, "equation": solves_equation, "countdown": solves_countdown}


def response_of(query: str, prompt: str) -> str:
    """The response's text without the tokens after its end."""
    response = query.removeprefix(prompt)
    for token in AFTER_THE_END:
        response = response.replace(token, "")
    return response


def grade(response: str, label: str) -> float:
    """1 for a solution, else 0."""
    rules = json.loads(label)
    return float(SOLVES[rules["family"]](response, rules))


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any
) -> dict[str, Any]:
    """Rewards of a batch in OpenRLHF's form: `rewards` for training, `scores` in [0, 1] for the log."""
    rewards = torch.tensor(
        [
            grade(response_of(query, prompt), label)
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
    )
    return {"rewards": rewards, "scores": rewards}
