"""OpenRLHF's experiences as the responses that a run folder keeps (`mtp.record.rollouts`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openrlhf_mtp.losses.advantage import sample_advantages
from openrlhf_mtp.losses.alignment import action_positions, spans
from openrlhf_mtp.runlog.rollouts import RecordedResponse


def recorded(experiences: Iterable[Any], tokenizer: Any) -> list[RecordedResponse]:
    """Every sample of a rollout whose advantages are known."""
    return [
        _one(experience, row, tokenizer)
        for experience in experiences
        for row in range(len(experience.sequences))
    ]


def _one(experience: Any, row: int, tokenizer: Any) -> RecordedResponse:
    present = experience.attention_mask[row].bool()
    ids = experience.sequences[row][present].tolist()
    sampled = spans(action_positions(experience.action_mask[row : row + 1])[0][present])
    own = slice(row, row + 1)
    advantage = sample_advantages(experience.advantages[own], experience.action_mask[own])
    return RecordedResponse(
        prompt=experience.prompts[row],
        response=tokenizer.decode(ids[sampled[0][0] :], skip_special_tokens=False) if sampled else "",
        ids=tuple(ids),
        sampled=sampled,
        reward=float(experience.rewards[row]),
        advantage=float(advantage),
    )
