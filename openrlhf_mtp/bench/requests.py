"""The requests of a whole rollout: prompts, and how long each response will be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openrlhf_mtp.config.errors import JobError


@dataclass(frozen=True)
class Request:
    """A prompt and the length that its response is forced to.

    Attributes:
        prompt: token ids.
        tokens: of the response; its end tokens do not end it.
        recorded: the response's tokens where it comes from a recorded rollout, else empty.
    """

    prompt: tuple[int, ...]
    tokens: int
    recorded: tuple[int, ...] = ()


def with_lengths(prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Request]:
    """A request for each length; neighbors share a prompt, as the samples of a group do."""
    return [
        Request(tuple(prompts[at * len(prompts) // len(lengths)]), tokens)
        for at, tokens in enumerate(lengths)
    ]


def read_recorded(file: Path, count: int | None = None) -> list[Request]:
    """The responses of an RL step that ran with `mtp.record.rollouts`: `rollouts/step_*.jsonl` of its run folder.

    Args:
        file: JSON lines with `ids`, the tokens of prompt and response, and `sampled`, the span that was sampled.
        count: so many, from the first; all without it.

    Raises:
        JobError: it is not there, has other lines, or fewer.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()[:count]
        requests = [_request(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise JobError(
            f"--recorded: got {file}, expected lines as mtp.record.rollouts writes them, with `ids` and one span in "
            f"`sampled` ({type(problem).__name__}: {problem})"
        ) from problem
    if not requests or (count is not None and len(requests) < count):
        raise JobError(
            f"--recorded: got {file} with {len(requests)} responses, expected {count or 'at least 1'}"
        )
    return requests


def _request(row: dict[str, list[int] | list[list[int]]]) -> Request:
    ids = [int(token) for token in row["ids"]]  # type: ignore[arg-type]
    ((start, end),) = row["sampled"]  # type: ignore[misc]
    if not 0 < start < end <= len(ids):
        raise ValueError(f"`sampled` is [{start}, {end}] of {len(ids)} tokens")
    return Request(tuple(ids[:start]), end - start, tuple(ids[start:end]))


def shortened(requests: Sequence[Request], *, factor: int) -> list[Request]:
    """The same prompts with responses a factor shorter, at least two tokens: what warms an engine up."""
    return [replace(each, tokens=max(2, each.tokens // factor)) for each in requests]


def longest(requests: Sequence[Request]) -> int:
    """Tokens of the longest sequence."""
    return max(len(each.prompt) + each.tokens for each in requests)
