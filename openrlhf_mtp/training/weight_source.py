"""The weights that the trainer sends: policy and head by checkpoint name, gathered when ZeRO-3 shards them.

LoRA adapters are merged into the weights they adapt,

    W' = W + s B A,   s = alpha / rank

because OpenRLHF 0.11.2 sends parameters as peft names them (`base_layer`, `lora_A`), which no engine knows. The engines
get plain weights, computed in float32 and rounded once to their type. Training itself keeps W and B A apart, so in
bfloat16 the two sides differ by that rounding; `spec/logprob_gap` shows by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import deepspeed
from torch import Tensor, nn

from openrlhf_mtp.heads.formats.head_folder import named_tensors
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.sync.manifest import Manifest, TensorSpec, WeightSource

_BASE = ".base_layer."


@dataclass(frozen=True)
class WeightToSend:
    """One tensor of the policy, for the engines.

    Attributes:
        name: in the checkpoint.
        parameters: what it is computed from; the first has its shape. All of them must be gathered under ZeRO-3.
        value: the tensor itself, while they are.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    value: Callable[[], Tensor]


def policy_source(model: nn.Module, dtype: str, *, sharded: bool) -> WeightSource:
    """All parameters of the policy, adapters merged; tied ones once, under their first name.

    Args:
        model: the Hugging Face model.
        dtype: the engine's, on the wire.
        sharded: true under ZeRO-3: each tensor is gathered while it is packed, a collective over all ranks.
    """

    def full_shape(parameter: Any) -> tuple[int, ...]:
        return tuple(parameter.ds_shape if sharded else parameter.shape)

    weights = tuple(weights_to_send(model))

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for weight in weights:
            with deepspeed.zero.GatheredParameters(list(weight.parameters), enabled=sharded):
                yield weight.name, weight.value()

    specs = tuple(TensorSpec(weight.name, full_shape(weight.parameters[0]), dtype) for weight in weights)
    return WeightSource(Manifest(specs), tensors)


def head_source(head: MTPHead, dtype: str) -> WeightSource:
    """All parameters of the head, which is never sharded."""

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, parameter in named_tensors(head):
            yield name, parameter.data

    specs = tuple(TensorSpec(name, tuple(p.shape), dtype) for name, p in named_tensors(head))
    return WeightSource(Manifest(specs), tensors)


def weights_to_send(model: nn.Module) -> Iterator[WeightToSend]:
    """Every tensor of a policy in the order of its parameters; tied ones once, under their first name.

    Raises:
        ValueError: an adapter that is not plain LoRA on a linear layer.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, parameter in model.named_parameters():
        owner = next((layer for layer in adapted if name.startswith(f"{layer}.")), None)
        if owner is None:
            yield WeightToSend(name, (parameter,), lambda p=parameter: p.data)  # type: ignore[misc]
            continue
        _require_plain(owner, adapted[owner])
        if _BASE in name and name.endswith(".weight"):
            yield _merged(owner, adapted[owner], parameter)
        elif _BASE in name:
            yield WeightToSend(name.replace(_BASE, "."), (parameter,), lambda p=parameter: p.data)  # type: ignore[misc]


def _require_plain(name: str, layer: Any) -> None:
    """Refuse adapters whose weight is computed otherwise, those of stacked experts too (peft's `ParamWrapper`)."""
    from peft.tuners.lora import Linear

    kind: type = type(layer)
    if kind is not Linear or layer.fan_in_fan_out or any(layer.use_dora.values()):
        raise ValueError(
            f"{name}: got {kind.__name__}, expected plain LoRA on a linear layer, whose merged weight is "
            "W + s B A; leave this module out of ds.lora.target_modules"
        )


def _merged(name: str, layer: Any, weight: nn.Parameter) -> WeightToSend:
    """The weight of a linear layer with every active adapter in it."""
    pairs = [
        (layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.scaling[adapter])
        for adapter in layer.active_adapters
    ]

    def value() -> Tensor:
        total = weight.data.float()
        for a, b, scale in pairs:
            total = total + scale * (b.data.float() @ a.data.float())
        return total

    parameters = (weight, *(parameter for a, b, _ in pairs for parameter in (a, b)))
    return WeightToSend(f"{name}.weight", parameters, value)
