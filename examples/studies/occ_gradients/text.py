"""Responses to problems: sampled in groups, and in the form in which OpenRLHF's trainer gets them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from replay.pool import CHUNK, Grade, answer
from replay.states import load_policy, pad
from torch import Tensor
from transformers import AutoTokenizer
from worked.problems import problems

from openrlhf_mtp.runlog.rollouts import RecordedResponse


def sample_groups(
    folder: Path, *, count: int, each: int, held_out: bool, seed: int, tokens: int, reward: Grade
) -> list[RecordedResponse]:
    """`each` responses to each of `count` problems, one problem after the other, with advantages of the group."""
    policy, tokenizer = load_policy(folder), AutoTokenizer.from_pretrained(folder)
    chosen = [problem for problem in islice(problems(seed, held_out=held_out), count) for _ in range(each)]
    found: list[RecordedResponse] = []
    for at in range(0, len(chosen), CHUNK):
        found += answer(policy, tokenizer, chosen[at : at + CHUNK], seed * 101 + at, tokens, reward)
    advantages = group_norm(torch.tensor([each.reward for each in found]), each).tolist()
    return [replace(one, advantage=value) for one, value in zip(found, advantages, strict=True)]


def group_norm(rewards: Tensor, each: int) -> Tensor:
    """OpenRLHF's `group_norm`: rewards [M] within their group, centered and over its standard deviation."""
    groups = rewards.view(-1, each)
    spread = groups.std(-1, keepdim=True) + 1e-9
    return ((groups - groups.mean(-1, keepdim=True)) / spread).flatten()


def experience(responses: Sequence[RecordedResponse]) -> Experience:
    """A micro-batch of OpenRLHF, its old log-probs still missing; tokens are padded on the right."""
    text = pad(list(responses))
    actions = text["actions"][:, 1:]
    return Experience(
        sequences=text["sequences"],
        attention_mask=text["present"].long(),
        action_mask=actions,
        advantages=text["advantages"][:, None] * actions,
    )


def split(responses: Sequence[RecordedResponse], size: int) -> Iterator[Sequence[RecordedResponse]]:
    """Pieces of `size` responses, in order."""
    for at in range(0, len(responses), size):
        yield responses[at : at + size]
