"""A micro-batch of the batch loss, as the trainer would hand it over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.alignment import Anchors, find_anchors
from openrlhf_mtp.losses.kernels.rows import WHOLE, Shard
from openrlhf_mtp.losses.mixture import mixture
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput, OutputHead, mtp_loss
from openrlhf_mtp.losses.targets import from_hidden

DEPTHS, WIDTH, VOCAB = 3, 8, 11


@dataclass(frozen=True)
class Batch:
    """What a loss is made of; rows hold left padding, a prompt, a response and right padding.

    `states` are the chain's outputs at every position; a head run at the anchors only gives those of the grid.
    """

    states: list[Tensor]
    hidden: Tensor
    output_weight: Tensor
    input_ids: Tensor
    action_mask: Tensor
    segment_ids: Tensor

    def anchors(self, **choice: Any) -> Anchors:
        """All anchors, or a share of them."""
        return find_anchors(self.input_ids, self.action_mask, self.segment_ids, len(self.states), **choice)

    def on_grid(self, anchors: Anchors) -> list[Tensor]:
        """The states at the anchors [B, A, H]."""
        return [z.gather(1, anchors.grid[..., None].expand(-1, -1, WIDTH)) for z in self.states]

    def loss(
        self,
        objective: str,
        *,
        temperature: float = 0.7,
        vocab_size: int | None = None,
        chunk_anchors: int | None = None,
        chunk_logits: int | None = None,
        shard: Shard = WHOLE,
        choice: dict[str, Any] | None = None,
        **options: Any,
    ) -> MTPLossOutput:
        """The batch's loss."""
        anchors = self.anchors(**(choice or {}))
        head = OutputHead.of(self.output_weight, temperature, vocab_size=vocab_size, shard=shard)
        if chunk_anchors is not None:
            chunk_logits = chunk_anchors * len(self.states) * len(head.weight)
        if chunk_logits is not None:
            head = replace(head, chunk_logits=chunk_logits)
        return mtp_loss(
            self.on_grid(anchors),
            anchors,
            from_hidden(self.hidden, self.output_weight, temperature, vocab_size),
            head,
            mixture({objective: 1.0}, OBJECTIVES),
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


def wide_vocabulary(batch: Batch, vocab: int = 1000) -> Batch:
    """The same anchors over so large a vocabulary that logits are the largest tensors."""
    generator = torch.Generator().manual_seed(1)
    return replace(batch, output_weight=torch.randn(vocab, WIDTH, generator=generator).to(batch.hidden.dtype))


def on_logits(
    objective: str,
    draft: Tensor,
    target: Tensor,
    tokens: Tensor,
    mask: Tensor,
    *,
    row_weight: Tensor | None = None,
    depth_decay: float = 1.0,
) -> MTPLossOutput:
    """An objective on given logits [N, k, V] (draft and target), tokens [N, k], mask [N, k]: states are logits, and
    the output head is the identity."""
    count, depths, vocab = draft.shape
    every = torch.arange(count)
    anchors = Anchors(
        grid=torch.zeros(count, 1, dtype=torch.long),
        present=torch.ones(count, 1, dtype=torch.bool),
        index=every,
        row=every,
        reads=(),  # the chain has run
        target_index=torch.arange(count * depths).view(count, depths),
        tokens=tokens,
        columns=(0, 0),
        column=torch.empty(count, 0, dtype=torch.long),
        mask=mask,
    )
    flat = target.flatten(0, 1)
    return mtp_loss(
        [z[:, None] for z in draft.unbind(1)],
        anchors,
        lambda index, _: flat[index],
        OutputHead.of(torch.eye(vocab, dtype=draft.dtype), 1.0),
        mixture({objective: 1.0}, OBJECTIVES),
        row_weight=row_weight,
        depth_decay=depth_decay,
    )
