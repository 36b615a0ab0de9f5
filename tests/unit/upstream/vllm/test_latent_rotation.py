"""A query with heads in a dimension of their own is turned by the plain form, any other by the CPU operator."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from openrlhf_mtp.upstream.vllm.latent_rotation import PATCH


class Rotary:
    """vLLM's embedding; it says which form it took."""

    def forward_native(self, positions: object, query: object, key: object) -> str:
        return "plain"

    def forward_cpu(self, positions: object, query: object, key: object = None) -> str:
        return "operator"


@pytest.mark.parametrize(("dimensions", "form"), [(2, "operator"), (3, "plain")])
def test_the_plain_form_turns_a_latent_query(dimensions: int, form: str) -> None:
    embeddings: Any = ModuleType(PATCH.target)
    embeddings.RotaryEmbedding = type("RotaryEmbedding", (Rotary,), dict(vars(Rotary)))
    assert not PATCH.probe(embeddings)
    PATCH.apply(embeddings)
    assert PATCH.probe(embeddings)
    query = SimpleNamespace(dim=lambda: dimensions)
    assert embeddings.RotaryEmbedding().forward_cpu(None, query, None) == form
