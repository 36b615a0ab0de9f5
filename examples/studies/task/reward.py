"""Graded, verifiable reward of a walk: half for the steps before the first mistake, half for a right end.

    reward = 0.5 * (right steps before the first mistake) / steps + 0.5 * [all steps right, nothing more, goal reached]

OpenRLHF loads this file by its path (`reward.remote_url`) and calls `reward_func` with the decoded texts; `queries`
hold prompt and response, `labels` the rules (`walk.Problem.label`). It must not raise on any text a model can write.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

RING = 100
AFTER_THE_END = ("<eos>", "<pad>")
STEP = re.compile("([a-z])([0-9][0-9])")


@dataclass(frozen=True)
class Grade:
    """What a response is worth: the share of steps before the first mistake, and whether it is right to its end."""

    valid: float
    solved: bool

    @property
    def reward(self) -> float:
        """In [0, 1]."""
        return 0.5 * self.valid + 0.5 * self.solved


def grade(response: str, rules: dict[str, Any]) -> Grade:
    """Check a response step by step against the rules of its prompt."""
    place, last, right, at = rules["start"], None, 0, 0
    while right < rules["steps"] and (step := STEP.match(response, at)):
        move, written = step[1], int(step[2])
        if move == last or move not in rules["moves"] or (place + rules["moves"][move]) % RING != written:
            break
        place, last, right, at = written, move, right + 1, step.end()
    complete = right == rules["steps"] and at == len(response)
    return Grade(right / rules["steps"], complete and (place - rules["goal"]) % rules["modulus"] == 0)


def response_of(query: str, prompt: str) -> str:
    """The response's text without the tokens after its end."""
    response = query.removeprefix(prompt)
    for token in AFTER_THE_END:
        response = response.replace(token, "")
    return response


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any
) -> dict[str, Any]:
    """Rewards of a batch in OpenRLHF's form: `rewards` for training, `scores` in [0, 1], `extra_logs` for the log."""
    grades = [
        grade(response_of(query, prompt), json.loads(label))
        for query, prompt, label in zip(queries, prompts, labels, strict=True)
    ]
    rewards = torch.tensor([each.reward for each in grades])
    parts = {
        "valid": torch.tensor([each.valid for each in grades]),
        "solved": torch.tensor([float(each.solved) for each in grades]),
    }
    return {"rewards": rewards, "scores": rewards, "extra_logs": parts}
