"""The policy's logits at the positions drafts are compared with: constants, at the rollout's temperature."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openrlhf_mtp.losses.kernels.projection import Scratch, project

Targets = Callable[[Tensor, Scratch], Tensor]
"""Indices into the flattened batch [M], and where to put them -> target logits [M, V]."""


def from_hidden(
    hidden: Tensor, output_weight: Tensor, temperature: float, vocab_size: int | None = None
) -> Targets:
    """Project the policy's last hidden states [B, T, H] with its output head [V', H], row by row when asked.

    Both are constants: whoever makes the head's batch detaches them. Rows of the output head beyond `vocab_size` are
    padding and are cut off before any softmax.
    """
    assert not hidden.requires_grad, "targets are constants of the policy"
    assert not output_weight.requires_grad, "targets are constants of the policy"
    states, weight = hidden.flatten(0, 1), output_weight[:vocab_size]

    def logits(index: Tensor, scratch: Scratch) -> Tensor:
        return project(states[index], weight, temperature, scratch)

    return logits


def from_logits(logits: Tensor, packed_index: Tensor | None = None, vocab_size: int | None = None) -> Targets:
    """Take the logits that the policy's own forward pass computed, already divided by the temperature.

    Args:
        logits: detached [B, T, V'], or [1, P, V'] for a packed batch of P tokens.
        packed_index: for a packed batch, where each position of the flattened batch lies in it [B * T].
        vocab_size: V, when columns beyond it are padding.
    """
    assert not logits.requires_grad, "targets are constants of the policy"
    flat = logits.flatten(0, 1)[:, :vocab_size]

    def rows(index: Tensor, scratch: Scratch) -> Tensor:
        taken = scratch.take(len(index), flat.shape[1], flat)
        return torch.index_select(flat, 0, index if packed_index is None else packed_index[index], out=taken)

    return rows
