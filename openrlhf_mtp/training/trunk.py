"""What head training needs of the policy: its embedding, its output head, its size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


def unwrapped(model: Any) -> nn.Module:
    """The Hugging Face model inside a DeepSpeed engine, or the model itself."""
    inner: nn.Module = getattr(model, "module", model)
    return inner


@dataclass(frozen=True)
class Trunk:
    """The two matrices that the head shares with the policy.

    Attributes:
        embedding: token embedding, weight [V, H].
        output_head: projection to logits, weight [V, H]; the same tensor when the embeddings are tied.
        config: the model's Hugging Face configuration.
    """

    embedding: nn.Module
    output_head: nn.Module
    config: Any

    @classmethod
    def of(cls, model: Any) -> Trunk:
        """Look the two modules up through Hugging Face's accessors."""
        inner = unwrapped(model)
        return cls(inner.get_input_embeddings(), inner.get_output_embeddings(), inner.config)

    @contextmanager
    def weights(self, *, sharded: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The embedding and output-head weights as parameters; gathered first when ZeRO-3 shards them.

        Collective over the data-parallel ranks when `sharded`; then they are whole inside the context only.
        """
        parameters = (self.embedding.weight, self.output_head.weight)
        if not sharded:
            yield parameters
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(parameters)):
            yield parameters
