"""Tiny trunks of every family, and the chain evaluated step by step with transformers' own layer and cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig
from transformers.cache_utils import DynamicCache

from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.heads.hf_classes import rotary_class

WIDTH, VOCAB, DEPTHS = 32, 48, 3

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "llama": {"rope_parameters": _LLAMA3_ROPE},
    "mistral": {"head_dim": 16, "sliding_window": 4},
    "seed_oss": {"head_dim": 16, "attention_dropout": 0.1, "residual_dropout": 0.1},
    "arcee": {},
}
"""Query-key norms, a head width that is not H / N, RoPE scaling; no head takes a sliding window or dropout."""


def trunk_config(model_type: str, **changes: Any) -> Any:
    """A family's configuration at toy size."""
    return AutoConfig.for_model(model_type, **{**SIZES, **FAMILIES[model_type], **changes})


def random_head(
    model_type: str, *, num_blocks: int = 1, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> MTPHead:
    """A head whose every parameter is random, norms and biases included."""
    head = MTPHead(HeadConfig.from_trunk(trunk_config(model_type), depths=DEPTHS, num_blocks=num_blocks))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if parameter.dim() == 1 else 0.2 * noise)
    return head.to(device, dtype)


def random_inputs(
    batch: int = 2, length: int = 9, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[Tensor, list[Tensor], Tensor, Tensor, int]:
    """Arguments of the head's forward, without padding."""
    generator = torch.Generator().manual_seed(2)
    draws = torch.randn(DEPTHS + 1, batch, length, WIDTH, generator=generator).to(device, dtype)
    positions = torch.arange(length, device=device).expand(batch, length)
    return draws[0], list(draws[1:]), positions, torch.ones_like(positions), DEPTHS


@torch.no_grad()
def drafted_step_by_step(
    head: MTPHead, hidden: Tensor, embeddings: list[Tensor], anchor: int
) -> list[Tensor]:
    """z^1 ... z^k at one anchor of one sample ([T, H] each), as an engine drafts: depth 1 over all positions up to the
    anchor, then one position at a time, every block with a cache of its own. Uses transformers' layer as it is."""
    family, config = head.config.family, head.config.model
    config._attn_implementation = "eager"
    rotary = rotary_class(family)(config)
    caches = [DynamicCache() for _ in head.blocks]

    def run(depth: int, states: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        outputs = []
        for block, cache in zip(head.blocks, caches, strict=True):
            mixed = torch.cat([block.hidden_norm(states), block.token_norm(tokens)], -1)
            x = block.proj(mixed)[None]
            seen = cache.get_seq_length() + x.shape[1]
            mask = torch.full((x.shape[1], seen), float("-inf")).triu(seen - x.shape[1] + 1)[None, None]
            rotation = rotary(x, positions[None])
            layer = block.layer(x, attention_mask=mask, position_embeddings=rotation, past_key_values=cache)
            outputs.append(block.final_norm(layer)[0])
        return outputs[(depth - 1) % len(head.blocks)]

    prefix = slice(0, anchor + 1)
    z = run(1, hidden[prefix], embeddings[0][prefix], torch.arange(anchor + 1))[-1:]
    drafted = [z]
    for depth in range(2, len(embeddings) + 1):
        token = embeddings[depth - 1][anchor : anchor + 1]
        z = run(depth, z, token, torch.tensor([anchor + depth - 1]))
        drafted.append(z)
    return [state[0] for state in drafted]
