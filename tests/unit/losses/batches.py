"""A micro-batch of the batch loss, as the trainer would hand it over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openrlhf_mtp.losses.mtp_loss import MTPLossOutput, mtp_loss

DEPTHS, WIDTH, VOCAB = 3, 8, 11


@dataclass(frozen=True)
class Batch:
    """Arguments of `mtp_loss`; rows hold left padding, a prompt, a response and right padding."""

    states: list[Tensor]
    hidden: Tensor
    output_weight: Tensor
    input_ids: Tensor
    action_mask: Tensor
    segment_ids: Tensor

    def loss(self, objective: str, *, temperature: float = 0.7, **options: object) -> MTPLossOutput:
        """The batch's loss."""
        return mtp_loss(
            self.states,
            self.hidden,
            self.output_weight,
            self.input_ids,
            self.action_mask,
            self.segment_ids,
            objective=objective,
            temperature=temperature,
            **options,
        )

    def rows(self, rows: slice) -> Batch:
        """Some of the rows, as a micro-batch of their own (gradients still reach the whole batch's states)."""
        return Batch(
            [z[rows] for z in self.states],
            self.hidden[rows],
            self.output_weight,
            self.input_ids[rows],
            self.action_mask[rows],
            self.segment_ids[rows],
        )

    def states_gradient(self, objective: str) -> list[Tensor]:
        """d loss_sum / d z^j."""
        return list(torch.autograd.grad(self.loss(objective).loss_sum, self.states))


def random_batch(
    seed: int = 0, rows: int = 6, length: int = 12, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> Batch:
    """Random everything; row lengths, prompt lengths and padding differ."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

    segments = torch.zeros(rows, length, dtype=torch.long)
    actions = torch.zeros(rows, length, dtype=torch.bool)
    for row in range(rows):
        left, prompt, right = torch.randint(1, 4, (3,), generator=generator).tolist()
        segments[row, left : length - right] = 1
        actions[row, left + prompt : length - right] = True
    return Batch(
        states=[normal(rows, length, WIDTH).requires_grad_() for _ in range(DEPTHS)],
        hidden=normal(rows, length, WIDTH),
        output_weight=normal(VOCAB, WIDTH),
        input_ids=torch.randint(VOCAB, (rows, length), generator=generator).to(device),
        action_mask=actions.to(device),
        segment_ids=segments.to(device),
    )
