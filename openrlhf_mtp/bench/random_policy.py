"""The shape of the random policies that `bench.step` trains and `bench.sync` sends."""

from __future__ import annotations

from typing import Any

HEAD_WIDTH = 64
"""Width of an attention head; the hidden size is a multiple of it."""


def random_policy(layers: int, hidden: int, vocab: int, longest: int) -> Any:
    """A random Qwen2 model in bfloat16, the same each time: four times as wide inside, a key-value head for four heads.

    Args:
        layers, hidden, vocab: its size.
        longest: positions that it knows.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    heads = max(1, hidden // HEAD_WIDTH)
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        max_position_embeddings=longest,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    policy: Any = Qwen2ForCausalLM(config)
    return policy.to(torch.bfloat16)
