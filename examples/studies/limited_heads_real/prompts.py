"""Chat prompts in batches of one length, which the sampler takes without padding."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def read_prompts(path: Path, tokenizer: Any) -> list[list[int]]:
    """The prompts of a file of JSON lines as tokens, in the policy's chat template if it has one.

    Raises:
        ValueError: a line's `input` is neither a text nor a list of messages.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        given = json.loads(line)["input"]
        turns = [{"role": "user", "content": given}] if isinstance(given, str) else given
        if not isinstance(turns, list):
            raise ValueError(
                f"{path}, line {number}: got {type(given).__name__}, expected a text or messages"
            )
        text = (
            "".join(turn["content"] for turn in turns)
            if tokenizer.chat_template is None
            else tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )
        found.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    return found


def batches(prompts: Sequence[Sequence[int]], *, most: int, longest: int) -> list[Tensor]:
    """Prompts of equal length side by side, at most `most` of them; longer ones than `longest` are left out.

    Raises:
        ValueError: all prompts are longer.

    >>> [tuple(batch.shape) for batch in batches([[1], [2, 3], [4], [5], [6, 7, 8]], most=2, longest=2)]
    [(2, 1), (1, 1), (1, 2)]
    """
    by_length: dict[int, list[Sequence[int]]] = {}
    for prompt in prompts:
        by_length.setdefault(len(prompt), []).append(prompt)
    kept = [group for length, group in sorted(by_length.items()) if length <= longest]
    if not kept:
        raise ValueError(
            f"got prompts of {min(by_length, default=0)} tokens or more, expected some of at most {longest}"
        )
    return [torch.tensor(group[at : at + most]) for group in kept for at in range(0, len(group), most)]
