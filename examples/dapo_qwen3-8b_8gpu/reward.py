"""DAPO-Math's reward: +1 if the integer after the last `Answer:` or in the last \\boxed{} is the label's, else -1.

Labels of DAPO-Math-17k are integers, so texts are compared and no symbolic algebra runs: a simplification that
does not end would stop a rollout. OpenRLHF loads this file by its path (`reward.remote_url`).
"""

import re
from collections.abc import Sequence
from typing import Any

import torch

ANSWER = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}|(?i:answer)\s*:\s*([^\n<]+)")
INTEGER = re.compile(r"[-+]?\d{1,40}")


def integer(text: str) -> int | None:
    """The integer that a final answer is, None when it is anything else: `$1{,}024$` and `**7**` are integers.

    >>> integer("$-1,024$.")
    -1024
    """
    bare = re.sub(r"\\[(),!\[\]]|[$*,\s{}]", "", text).rstrip(".")
    return int(bare) if INTEGER.fullmatch(bare) else None


def answer(response: str) -> int | None:
    """The last final answer of a response, None when there is none."""
    found = ANSWER.findall(response)
    return integer(found[-1][0] or found[-1][1]) if found else None


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any
) -> dict[str, Any]:
    """Rewards of a batch in OpenRLHF's form: `rewards` for training, `scores` in [0, 1] for filtering and the log."""
    answers = [answer(query.removeprefix(prompt)) for query, prompt in zip(queries, prompts, strict=True)]
    right = [
        given is not None and given == integer(str(label))
        for given, label in zip(answers, labels, strict=True)
    ]
    scores = torch.tensor(right, dtype=torch.float32)
    answered = torch.tensor([given is not None for given in answers], dtype=torch.float32)
    return {"rewards": 2 * scores - 1, "scores": scores, "extra_logs": {"answered": answered}}
