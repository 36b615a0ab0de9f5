"""Verifiable reward: 1 if reasoning-gym's own scorer gives the response's answer full marks, else 0.

OpenRLHF loads this file by its path (`reward.remote_url`) and calls `reward_func` with decoded texts; `queries` hold
prompt and response. A label is the JSON of the problem's family and entry, as `tasks.py` writes it. It must not raise
on any text a model can write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

AFTER_THE_END = re.compile(r"<\|im_end\|>|<\|endoftext\|>")
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
BEFORE_THE_ANSWER = re.compile(r"=|:(?!\d)|\b(?:is|are)\b")
"""What separates an answer from what introduces it: `3 + 4 = 7`, `Answer: 7`, `The answer is 7.` A colon between
digits is a time of day."""


def answer_of(response: str) -> str | None:
    """The final answer of a response; None if it has none.

    The content of the last `<answer>` tag, or else the last line, without an introduction, quotes and a closing period.

    >>> answer_of("First 3 + 4 = 7.\\nSo the answer is **12**.")
    '12'
    """
    response = AFTER_THE_END.sub("", response)
    tagged = TAGGED.findall(response)
    lines = [line for line in (tagged[-1] if tagged else response).splitlines() if line.strip()]
    if not lines:
        return None
    answer = BEFORE_THE_ANSWER.split(lines[-1])[-1]
    answer = answer.replace("**", "").strip().rstrip(".").strip(" \"'`$")
    return answer or None


@cache
def _scorer(family: str) -> Any:
    from reasoning_gym import get_score_answer_fn

    return get_score_answer_fn(family)


def is_right(answer: str | None, label: str) -> bool:
    """Whether the scorer of the label's family gives full marks.

    Raises:
        ValueError: the label is not one of `tasks.py`.
    """
    try:
        problem = json.loads(label)
        family, entry = problem["family"], problem["entry"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"label: got {label[:80]!r}, expected JSON with `family` and `entry`, as prepare.py writes it"
        ) from error
    if answer is None:
        return False
    scorer = _scorer(family)
    try:
        return bool(scorer(answer=answer, entry=entry) >= 1.0)
    except (
        Exception
    ):  # scorers parse with eval, sympy and json, and raise whatever these raise on a wrong text
        return False


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any
) -> dict[str, Any]:
    """Rewards of a batch in OpenRLHF's form: `rewards` for training, `scores` in [0, 1], `extra_logs` for the log."""
    answers = [answer_of(query.removeprefix(prompt)) for query, prompt in zip(queries, prompts, strict=True)]
    right = torch.tensor([float(is_right(a, label)) for a, label in zip(answers, labels, strict=True)])
    answered = torch.tensor([float(answer is not None) for answer in answers])
    return {"rewards": right, "scores": right, "extra_logs": {"answered": answered}}
