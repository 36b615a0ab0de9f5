"""Multi-head latent attention (DeepSeek-V3): queries, keys and values from compressed projections.

Each head's query and key are [without position; rotated], D = D_nope + D_rope wide, the rotated part of the key the
same for all heads; values are D_v wide, at most D. The chain's attention takes one width, so values are filled up with
zeros to D and what comes out is cut back. The engine keeps the compressed form in its cache and computes the same
numbers from it.

Shapes: B batch, N heads, T positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the positions [B, T, D_rope]."""


def query(attention: Any, normed: Tensor, rotation: Rotation) -> Tensor:
    """[B, T, H] -> [B, N, T, D]."""
    if attention.q_lora_rank is None:
        projected = attention.q_proj(normed)
    else:
        projected = attention.q_b_proj(attention.q_a_layernorm(attention.q_a_proj(normed)))
    heads = projected.unflatten(-1, (-1, attention.qk_head_dim))
    plain, turning = heads.split([attention.qk_nope_head_dim, attention.qk_rope_head_dim], dim=-1)
    return torch.cat([plain, _rotated(attention, turning, rotation)], dim=-1).transpose(1, 2)


def key_value(attention: Any, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """[B, T, H] -> [B, N, T, D] each."""
    compressed, turning = attention.kv_a_proj_with_mqa(normed).split(
        [attention.kv_lora_rank, attention.qk_rope_head_dim], dim=-1
    )
    heads = attention.kv_b_proj(attention.kv_a_layernorm(compressed)).unflatten(-1, (attention.num_heads, -1))
    plain, value = heads.split([attention.qk_nope_head_dim, attention.v_head_dim], dim=-1)
    turned = _rotated(attention, turning.unsqueeze(2), rotation).expand(-1, -1, attention.num_heads, -1)
    key = torch.cat([plain, turned], dim=-1)
    value = pad(value, (0, attention.qk_head_dim - attention.v_head_dim))
    return key.transpose(1, 2).contiguous(), value.transpose(1, 2).contiguous()


def attended(attention: Any, padded: Tensor) -> Tensor:
    """The attention's result as o_proj reads it: [B, N, T, D] -> [B, T, N D_v]."""
    return padded[..., : attention.v_head_dim].transpose(1, 2).flatten(2)


def _rotated(attention: Any, heads: Tensor, rotation: Rotation) -> Tensor:
    """[B, T, N, D_rope]; pairs that turn together lie side by side in the weights, or half the width apart."""
    cos, sin = (part[..., : part.shape[-1] // 2].unsqueeze(2) for part in rotation)
    if attention.config.rope_interleave:
        first, second = heads[..., ::2], heads[..., 1::2]
    else:
        first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
