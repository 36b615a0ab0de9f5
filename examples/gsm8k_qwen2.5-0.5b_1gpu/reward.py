"""GSM8K's reward: 1 if the number in the last \\boxed{} (or after ####) is the label's, else 0.

OpenRLHF loads this file by its path (`reward.remote_url`) and calls `reward_func` with decoded texts; `queries`
hold prompt and response. It must not raise on any text a model can write.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import torch

ANSWER = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}|####\s*([^\n<]+)")
DRESSING = re.compile(r"\\(?:text|mathrm|\$|!|,| )|[$€£%,\s]|[a-zA-Z]+")


def number(text: str) -> Decimal | None:
    """The number in a final answer, None if it is none: `$1,234.50`, `72 apples` and `5\\%` are numbers.

    >>> number("$1,234.50")
    Decimal('1234.50')
    """
    bare = DRESSING.sub("", text).strip("\\{}().")
    if len(bare) > 40:
        return None
    try:
        value = Decimal(bare)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def answer(response: str) -> Decimal | None:
    """The last final answer of a response, None when there is none."""
    found = ANSWER.findall(response)
    return number(found[-1][0] or found[-1][1]) if found else None


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_: Any
) -> dict[str, Any]:
    """Rewards of a batch in OpenRLHF's form: `rewards` for training, `scores` in [0, 1], `extra_logs` for the log."""
    answers = [answer(query.removeprefix(prompt)) for query, prompt in zip(queries, prompts, strict=True)]
    right = [
        given is not None and given == number(str(label))
        for given, label in zip(answers, labels, strict=True)
    ]
    rewards = torch.tensor(right, dtype=torch.float32)
    answered = torch.tensor([given is not None for given in answers], dtype=torch.float32)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {"answered": answered}}
