"""One MTP block: three norms, a projection, and a decoder layer of the trunk's family.

    x = proj([hidden_norm(hidden); token_norm(embedding)])          z = final_norm(layer(x))

The decoder layer is the family's own module, so its parameters have the family's own names; only its attention is
called from here, since a chain attends over its depths (`attention.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from openrlhf_mtp.heads.attention import chain_attention
from openrlhf_mtp.heads.families import Family

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the positions [B, T, D]."""


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotary position embedding in the half-split form that all families here use: [B, T, N, D] -> [B, T, N, D]."""
    cos, sin = (part.unsqueeze(2) for part in rotation)
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-second, first], dim=-1) * sin


class MTPBlock(nn.Module):
    """A block of the chain. H hidden width, N query heads, K key-value heads, D head width."""

    def __init__(self, family: Family, config: Any) -> None:
        super().__init__()
        width, eps, norm_class = config.hidden_size, config.rms_norm_eps, family.hf_norm_class()
        self.hidden_norm = norm_class(width, eps)
        self.token_norm = norm_class(width, eps)
        self.final_norm = norm_class(width, eps)
        self.proj = nn.Linear(2 * width, width, bias=False)
        self.layer = family.hf_layer_class()(config, layer_idx=0)
        self._normalizes_qk = family.normalizes_qk

    def mix(self, hidden: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's input and its normed form, which attention reads: [B, T, H] twice -> [B, T, H] twice."""
        x = self.proj(torch.cat([self.hidden_norm(hidden), self.token_norm(embedding)], dim=-1))
        return x, self.layer.input_layernorm(x)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, self.layer.self_attn.head_dim))

    def query(self, normed: Tensor, rotation: Rotation) -> Tensor:
        """[B, T, H] -> rotated queries [B, N, T, D]."""
        attention = self.layer.self_attn
        heads = self._heads(attention.q_proj(normed))
        if self._normalizes_qk:
            heads = attention.q_norm(heads)
        return rotate(heads, rotation).transpose(1, 2)

    def key_value(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """[B, T, H] -> rotated keys and values, [B, K, T, D] each."""
        attention = self.layer.self_attn
        key = self._heads(attention.k_proj(normed))
        if self._normalizes_qk:
            key = attention.k_norm(key)
        value = self._heads(attention.v_proj(normed))
        return rotate(key, rotation).transpose(1, 2), value.transpose(1, 2)

    def finish(
        self, x: Tensor, query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], segment_ids: Tensor
    ) -> Tensor:
        """Attend, and run the rest of the layer: -> z [B, T, H].

        Args:
            x: the layer's input [B, T, H].
            query: this depth's queries [B, N, T, D].
            keys: this block's keys of all depths so far [B, K, T, D] each.
            values: likewise.
            segment_ids: [B, T].
        """
        attention = self.layer.self_attn
        attended = chain_attention(query, keys, values, segment_ids, attention.scaling)
        x = x + attention.o_proj(attended.transpose(1, 2).flatten(2))
        x = x + self.layer.mlp(self.layer.post_attention_layernorm(x))
        return self.final_norm(x)
