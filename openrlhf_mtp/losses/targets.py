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


def from_logits(logits: Tensor, vocab_size: int | None = None) -> Targets:
    """Take the logits that the policy's own forward pass computed, already divided by the temperature.

    Args:
        logits: detached [B, T, V'], or [1, P, V'] for a packed batch of P tokens.
        vocab_size: V, when columns beyond it are padding.
    """
    assert not logits.requires_grad, "targets are constants of the policy"
    flat = logits.flatten(0, 1)[:, :vocab_size]

    def rows(index: Tensor, scratch: Scratch) -> Tensor:
        taken = scratch.take(len(index), flat.shape[1], flat)
        return torch.index_select(flat, 0, index, out=taken)

    return rows


def top_k(targets: Targets, count: int) -> Targets:
    """The policy cut to its `count` likeliest tokens and renormalized.

    With objective `kl` this is the soft cross-entropy with these tokens. Its gradient pushes the head down at all
    others. SkyRL's soft cross-entropy (NovaSky-AI/SkyRL, pull request 1832, with a count of 256) renormalizes the head
    over them too, and has no gradient at the others (`examples/studies/limited_heads/losses.py`).

    Every figure of the loss is then about the cut policy, so measure without it. Tokens as likely as the last one of
    them are kept too.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count: got {count}, expected 1 or more tokens")

    def logits(index: Tensor, scratch: Scratch) -> Tensor:
        rows = targets(index, scratch)
        least = rows.topk(min(count, rows.shape[1]), dim=-1).values.amin(-1, keepdim=True)
        return rows.masked_fill_(rows < least, float("-inf"))  # in the scratch, which is ours

    return logits
