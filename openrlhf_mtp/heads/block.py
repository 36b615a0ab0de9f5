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

from openrlhf_mtp.config.families import Family
from openrlhf_mtp.heads import latent
from openrlhf_mtp.heads.attention import chain_attention
from openrlhf_mtp.heads.grid import AnchorGrid
from openrlhf_mtp.heads.hf_classes import layer_class, norm_class, normalizes_qk
from openrlhf_mtp.heads.recompute import Kept

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the positions [B, T, D]."""


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotary position embedding in the half-split form that all families here use: [B, T, N, D] -> [B, T, N, D].

    Some families rotate the first channels only; cosines and sines are as wide as what is rotated.
    """
    cos, sin = (part.unsqueeze(2) for part in rotation)
    turning, still = heads.split([cos.shape[-1], heads.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = turning.chunk(2, dim=-1)
    turned = turning * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([turned, still], dim=-1) if still.shape[-1] else turned


class MTPBlock(nn.Module):
    """A block of the chain.

    T positions or A anchors, H hidden width, N query heads, K key-value heads, D head width.
    """

    def __init__(self, family: Family, config: Any) -> None:
        super().__init__()
        width, eps, norm = config.hidden_size, config.rms_norm_eps, norm_class(family)
        self.hidden_norm = norm(width, eps)
        self.token_norm = norm(width, eps)
        self.final_norm = norm(width, eps)
        self.proj = nn.Linear(2 * width, width, bias=False)
        self.layer = layer_class(family)(config, layer_idx=0)
        self._normalizes_qk = normalizes_qk(family, config)
        self._gates_attention = family.gates_attention
        self._is_latent = family.compresses_attention

    def mix(self, hidden: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's input and its normed form, which attention reads: [B, T, H] twice -> [B, T, H] twice."""
        x = self.proj(torch.cat([self.hidden_norm(hidden), self.token_norm(embedding)], dim=-1))
        return x, self.layer.input_layernorm(x)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, self.layer.self_attn.head_dim))

    def _query(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor | None]:
        """[B, A, H] -> rotated queries [B, N, A, D], and the gate of what is attended [B, A, N D], if any."""
        attention = self.layer.self_attn
        if self._is_latent:
            return latent.query(attention, normed, rotation), None
        heads, gate = self._heads(attention.q_proj(normed)), None
        if self._gates_attention:  # q_proj's rows are query and gate of each head in turn
            heads, gate = heads[..., ::2, :], heads[..., 1::2, :].flatten(2).sigmoid()
        if self._normalizes_qk:
            heads = attention.q_norm(heads)
        return rotate(heads, rotation).transpose(1, 2), gate

    def key_value(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """[B, T, H] -> rotated keys and values, [B, K, T, D] each."""
        attention = self.layer.self_attn
        if self._is_latent:
            return latent.key_value(attention, normed, rotation)
        key = self._heads(attention.k_proj(normed))
        if self._normalizes_qk:
            key = attention.k_norm(key)
        value = self._heads(attention.v_proj(normed))
        # laid out as the products of every later depth read them
        return rotate(key, rotation).transpose(1, 2).contiguous(), value.transpose(1, 2).contiguous()

    def finish(
        self,
        x: Tensor,
        normed: Tensor,
        rotation: Rotation,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        grid: AnchorGrid,
        kept: Kept | None = None,
    ) -> Tensor:
        """Attend, and run the rest of the layer: -> its output [B, A, H], before the final norm.

        Args:
            x: the layer's input at the anchors [B, A, H].
            normed: its normed form [B, A, H].
            rotation: of the anchors' positions at this depth.
            keys: this block's keys of all depths so far: [B, K, T, D] of depth 1, [B, K, A, D] of each other.
            values: likewise.
            grid: the anchors.
            kept: holds the attention for a second run (`recompute`).
        """
        attention = self.layer.self_attn
        query, gate = self._query(normed, rotation)
        result = chain_attention(query, keys, values, grid, attention.scaling, kept)
        attended = (
            latent.attended(attention, result) if self._is_latent else result.transpose(1, 2).flatten(2)
        )
        x = x + attention.o_proj(attended if gate is None else attended * gate)
        return x + self.layer.mlp(self.layer.post_attention_layernorm(x))
