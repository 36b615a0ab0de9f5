"""The parts of the policy that head training reads: its embedding, its output head, its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn


def unwrapped(model: Any) -> nn.Module:
    """The Hugging Face model inside a DeepSpeed engine and inside peft's wrapper of adapters, or the model itself."""
    from peft import PeftModel

    inner: nn.Module = getattr(model, "module", model)
    return inner.get_base_model() if isinstance(inner, PeftModel) else inner


@dataclass(frozen=True)
class Trunk:
    """The two matrices that the head shares with the policy, and where its hidden states come from.

    Attributes:
        embedding: token embedding, weight [V, H].
        output_head: projection to logits, weight [V, H]; the same tensor when the embeddings are tied.
        final_norm: what the last hidden states go through before the output head.
        config: the model's Hugging Face configuration.
    """

    embedding: nn.Embedding
    output_head: nn.Linear
    final_norm: nn.Module
    config: Any

    @classmethod
    def of(cls, model: Any) -> Trunk:
        """Look the modules up through Hugging Face's accessors."""
        inner: Any = unwrapped(model)
        return cls(
            inner.get_input_embeddings(), inner.get_output_embeddings(), inner.base_model.norm, inner.config
        )

    @contextmanager
    def weights(self, *, sharded: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The weights of embedding and output head as parameters: gradients reach the policy.

        Gathered first when ZeRO-3 shards them (`sharded`): collective over the data-parallel ranks, and whole inside
        the context only. Their gradients reach DeepSpeed's partitions all the same: autograd adds them to those of the
        policy's own use of the parameter, which comes later in backward and gathers it again.
        """
        parameters = (self.embedding.weight, self.output_head.weight)
        if not sharded:
            yield parameters
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(parameters)):
            yield parameters

    @contextmanager
    def constants(self, *, sharded: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """The same weights detached, for a loss that must not reach the policy."""
        with self.weights(sharded=sharded) as (embedding, output_head):
            yield embedding.detach(), output_head.detach()

    def whole(self) -> Trunk:
        """Copies of the parts that stay whole on this rank, of a policy that ZeRO-3 shards and nobody trains
        (collective over the data-parallel ranks)."""
        import deepspeed

        parts = (self.embedding, self.output_head, self.final_norm)
        parameters = list(dict.fromkeys(p for part in parts for p in part.parameters()))
        with deepspeed.zero.GatheredParameters(parameters):
            copies = {p: nn.Parameter(p.detach().clone(), requires_grad=False) for p in parameters}
        return Trunk(
            twin(self.embedding, copies),
            twin(self.output_head, copies),
            twin(self.final_norm, copies),
            self.config,
        )


Part = TypeVar("Part", bound=nn.Module)


def twin(part: Part, parameters: Mapping[nn.Parameter, nn.Parameter]) -> Part:
    """The same module without its hooks, with other parameters in place of its own; a module without children."""
    made = object.__new__(type(part))
    restore: Any = made.__setstate__
    restore({**vars(part), **vars(nn.Module())})
    for name, parameter in part.named_parameters(recurse=False):
        made.register_parameter(name, parameters[parameter])
    return made


def layer_count(trunk: nn.Module) -> int:
    """Decoder layers of a trunk. An actor's method asks here: Ray pickles it with each module of torch whose name its
    code holds, and `torch.distributed.config`, which OpenRLHF's and ours would name by a `.config`, cannot be pickled.
    """
    return int(trunk.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
