"""Verifiable reward: 1 if the response ends with `=` and the right sum, else 0.

OpenRLHF loads this file by its path (`reward.remote_url`) and calls `reward_func` with the decoded texts; `queries`
hold prompt and response. It must not raise on any text a model can write.
"""

from collections.abc import Sequence
from typing import Any

import torch

AFTER_THE_END = ("<eos>", "<pad>")


def answer_of(query: str, prompt: str) -> str | None:
    """The number after the response's last `=`, without leading zeros; None if the response does not end with one."""
    response = query.removeprefix(prompt)
    for token in AFTER_THE_END:
        response = response.replace(token, "")
    _, equals, number = response.rpartition("=")
    if not equals or not (number.isascii() and number.isdigit()):
        return None
    return number.lstrip("0") or "0"


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any
) -> dict[str, Any]:
    """Rewards of a batch in OpenRLHF's form: `rewards` for training, `scores` in [0, 1], `extra_logs` for the log."""
    answers = [answer_of(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
    right = torch.tensor([float(a == str(label)) for a, label in zip(answers, labels, strict=True)])
    answered = torch.tensor([float(answer is not None) for answer in answers])
    return {"rewards": right, "scores": right, "extra_logs": {"answered": answered}}
