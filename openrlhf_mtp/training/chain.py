"""Run the head's chain over a micro-batch at its anchors, with or without a path for gradients into the policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding as lookup

from openrlhf_mtp.losses.alignment import Anchors, find_anchors, next_tokens
from openrlhf_mtp.losses.targets import Targets

Head = Callable[..., list[Tensor]]
"""`MTPHead.forward`, or a DeepSpeed engine around it."""


@dataclass(frozen=True)
class HeadBatch:
    """One micro-batch as the head sees it.

    Attributes:
        sequences: token ids [B, T].
        attention_mask: 1 for tokens, 0 for padding on either side [B, T].
        action_mask: true where the token at that position was sampled by the policy [B, T].
        hidden: the policy's last hidden states [B, T, H] as the head reads them: after the final norm, or before it.
        targets: the policy's logits; unset projects the hidden states, which must then be those after the norm.
        row_weight: how much each sample weighs in the head's loss [B], 1 on average; unset is 1.
    """

    sequences: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    hidden: Tensor
    targets: Targets | None = None
    row_weight: Tensor | None = None

    def anchors(self, depths: int, *, share: float = 1.0, draw: int = 0) -> Anchors:
        """The anchors that count, or a share of them; see `find_anchors`."""
        return find_anchors(
            self.sequences, self.action_mask, self.attention_mask.long(), depths, share=share, draw=draw
        )


def run_chain(
    head: Head, batch: HeadBatch, hidden: Tensor, embedding: Tensor, anchors: Anchors, depths: int
) -> list[Tensor]:
    """The chain's hidden states z^1 ... z^k on the anchors' grid, [B, A, H] each.

    Args:
        head: the head's forward.
        batch: the micro-batch.
        hidden: its hidden states, attached to the policy's graph or not [B, T, H].
        embedding: the policy's token embedding, attached or not [V, H].
        anchors: where.
        depths: k.
    """
    segments = batch.attention_mask.long()
    positions = (segments.cumsum(-1) - 1).clamp(min=0)
    tokens = next_tokens(batch.sequences, depths)
    # depth 1 leaves keys at every position, deeper depths run at the anchors only
    at_anchors = tokens.gather(1, anchors.grid[..., None].expand(-1, -1, depths))
    embeddings = [lookup(tokens[..., 0], embedding)]
    embeddings += [lookup(at_anchors[..., j], embedding) for j in range(1, depths)]
    return head(hidden, embeddings, positions, segments, depths, anchors.grid)


def detached_head(head: torch.nn.Module) -> Head:
    """The head as a fixed function: gradients go through it to its inputs, never to its parameters."""
    fixed = {name: tensor.detach() for name, tensor in [*head.named_parameters(), *head.named_buffers()]}

    def call(*inputs: object) -> list[Tensor]:
        states: list[Tensor] = torch.func.functional_call(head, fixed, inputs)
        return states

    return call
