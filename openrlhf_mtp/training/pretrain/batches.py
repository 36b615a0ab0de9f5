"""Batches of responses for the pre-RL stage: a fixed order by seed, so that a step number is a data position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.pretrain import PretrainSettings
from openrlhf_mtp.training.pretrain.responses import Response


@dataclass(frozen=True)
class Batch:
    """Padded on the right.

    Attributes:
        sequences: token ids [B, T].
        attention_mask: 1 for tokens, 0 for padding [B, T].
        action_mask: true where the token was sampled by the policy [B, T].
    """

    sequences: Tensor
    attention_mask: Tensor
    action_mask: Tensor


def steps_per_epoch(responses: int, batch_size: int) -> int:
    """Full batches in one pass; the rest of a pass is dropped, but never a whole pass.

    Raises:
        ValueError: fewer responses than one batch.
    """
    if responses < batch_size:
        raise ValueError(
            f"got {responses} training responses, expected at least mtp.pretrain.batch_size = {batch_size}; "
            "raise mtp.pretrain.samples_per_prompt or lower the batch size"
        )
    return responses // batch_size


def planned_steps(responses: int, settings: PretrainSettings) -> int:
    """Optimizer steps of the whole stage: all passes, or `max_steps` if those are fewer.

    Raises:
        ValueError: fewer responses than one batch.
    """
    steps = settings.epochs * steps_per_epoch(responses, settings.batch_size)
    return min(steps, settings.max_steps or steps)


def step_indices(step: int, responses: int, batch_size: int, seed: int) -> list[int]:
    """The responses that optimizer step `step` (from 0) trains on, over all ranks."""
    per_epoch = steps_per_epoch(responses, batch_size)
    epoch, position = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(seed + epoch)
    order = torch.randperm(responses, generator=generator)
    return order[position * batch_size : (position + 1) * batch_size].tolist()


def collate(responses: Sequence[Response], pad_token_id: int) -> Batch:
    """Pad responses to the longest of them."""
    length = max(len(r.prompt_ids) + len(r.response_ids) for r in responses)
    sequences = torch.full((len(responses), length), pad_token_id)
    attention = torch.zeros(len(responses), length, dtype=torch.long)
    action = torch.zeros(len(responses), length, dtype=torch.bool)
    for row, response in enumerate(responses):
        start, end = len(response.prompt_ids), len(response.prompt_ids) + len(response.response_ids)
        sequences[row, :end] = torch.tensor(response.prompt_ids + response.response_ids)
        attention[row, :end] = 1
        action[row, start:end] = True
    return Batch(sequences, attention, action)
