"""Sample from a small Qwen2 or Llama policy on the CPU, and keep its hidden states on the way.

All rows have prompts of one length and run to the same length, so that a step is one small matrix product a layer and
needs no mask. Three times as fast as `generate` with its static cache at these sizes, and the last hidden states, which
head training reads, come for nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


class Decoder:
    """Feeds a policy one token a row at a time.

    Args:
        model: a Hugging Face causal language model of the Qwen2 or Llama family, in evaluation mode.
        rows: B.
        length: T, the most tokens of a row.
    """

    def __init__(self, model: Any, rows: int, length: int) -> None:
        self.inner, config = model.model, model.config
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        kept = (len(self.inner.layers), 2, rows, config.num_key_value_heads, length, self.head_dim)
        self.cache = torch.zeros(kept, dtype=model.dtype)
        self.filled = 0

    def feed(self, tokens: Tensor) -> Tensor:
        """The hidden states after the final norm for the next token of each row: [B] -> [B, H]."""
        place = self.filled
        state = self.inner.embed_tokens(tokens)
        cos, sin = self.inner.rotary_emb(state[:, None], torch.full((1, 1), place))
        rotation = (cos[0], sin[0])  # [1, D] each, the same for every row
        for layer, cache in zip(self.inner.layers, self.cache, strict=True):
            state = state + self._attend(layer.self_attn, layer.input_layernorm(state), cache, rotation)
            state = state + layer.mlp(layer.post_attention_layernorm(state))
        self.filled = place + 1
        hidden: Tensor = self.inner.norm(state)
        return hidden

    def _attend(
        self, attention: Any, normed: Tensor, cache: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> Tensor:
        """One layer's attention for one new token a row: [B, H] -> [B, H]; its key and value go into the cache."""
        rows, kv_heads, place = len(normed), cache.shape[2], self.filled
        query, key, value = (
            projection(normed).view(rows, -1, self.head_dim)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        cache[0, :, :, place], cache[1, :, :, place] = _rotated(key, rotation), value
        keys, values = cache[:, :, :, : place + 1]
        grouped = _rotated(query, rotation).view(rows, kv_heads, -1, self.head_dim)
        weights = (grouped @ keys.transpose(-1, -2) * attention.scaling).softmax(-1)
        result: Tensor = attention.o_proj((weights @ values).reshape(rows, -1))
        return result


def _rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding, half-split: [B, N, D] -> [B, N, D]."""
    first, second = heads.chunk(2, dim=-1)
    return heads * rotation[0] + torch.cat([-second, first], dim=-1) * rotation[1]


@torch.no_grad()
def continue_prompts(
    model: Any,
    prompts: Tensor,
    length: int,
    *,
    temperature: float,
    seed: int,
    watch: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Continue each prompt to `length` tokens by sampling; end-of-sequence tokens do not end a row.

    Args:
        model: the policy, see `Decoder`.
        prompts: [B, P].
        length: T, more than P.
        temperature: of the samples.
        seed: of the samples.
        watch: told the number of tokens after each step.

    Returns:
        Tokens [B, T] and hidden states after the final norm [B, T, H]. The last position was never fed and is 0.
    """
    rows, given = prompts.shape
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.cat([prompts, prompts.new_zeros(rows, length - given)], dim=1)
    hidden = torch.zeros(rows, length, model.config.hidden_size, dtype=model.dtype)
    decoder, weight = Decoder(model, rows, length), model.get_output_embeddings().weight
    for at in range(length - 1):
        hidden[:, at] = decoder.feed(tokens[:, at])
        if at + 1 >= given:
            logits = linear(hidden[:, at], weight).float() / temperature
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            tokens[:, at + 1] = drawn[:, 0]
        if watch is not None:
            watch(at + 1)
    return tokens, hidden
