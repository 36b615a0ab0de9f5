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

from openrlhf_mtp.config.families import RL_FAMILIES, Family
from openrlhf_mtp.heads.formats.head_folder import named_tensors
from openrlhf_mtp.heads.formats.native import stacked
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
        buffer: what it is, if it is no parameter.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    value: Callable[[], Tensor]
    buffer: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """That of its shape."""
        return self.parameters[0] if self.buffer is None else self.buffer


def policy_source(model: nn.Module, dtype: str, *, sharded: bool) -> WeightSource:
    """All parameters and persistent buffers of the policy, adapters merged; tied ones once, under their first name.

    Args:
        model: the Hugging Face model.
        dtype: the engine's, on the wire, but for what its family's engines hold in float32.
        sharded: true under ZeRO-3: each tensor is gathered while it is packed, a collective over all ranks.
    """

    def full_shape(tensor: Any) -> tuple[int, ...]:
        return tuple(tensor.ds_shape if hasattr(tensor, "ds_shape") else tensor.shape)

    weights = tuple(weights_to_send(model))

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for weight in weights:
            with deepspeed.zero.GatheredParameters(list(weight.parameters), enabled=sharded):
                yield weight.name, weight.value()

    family = RL_FAMILIES.get(getattr(getattr(model, "config", None), "model_type", ""))
    specs = tuple(
        TensorSpec(weight.name, full_shape(weight.tensor), _wire_dtype(weight.name, dtype, family))
        for weight in weights
    )
    return WeightSource(Manifest(specs), tensors)


def head_source(head: MTPHead, dtype: str, trunk_layers: int) -> WeightSource:
    """All tensors of the head, which is never sharded: under our names for our draft class, under native ones for
    vLLM's draft models. Copies of the policy's embedding and output head are not sent, since a draft shares the
    policy's.

    Args:
        head: the head.
        dtype: as in `policy_source`.
        trunk_layers: the policy's layers.
    """
    family, layout = head.config.family, head.config.native

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in named_tensors(head):
            if family.drafts_natively:
                assert layout is not None, "vLLM's draft models run native heads"
                yield stacked(layout, name, tensor.data, trunk_layers)
            else:
                yield name, tensor.data

    specs = tuple(
        TensorSpec(name, tuple(tensor.shape), _wire_dtype(name, dtype, family)) for name, tensor in tensors()
    )
    return WeightSource(Manifest(specs), tensors)


def _wire_dtype(name: str, dtype: str, family: Family | None) -> str:
    return "float32" if family is not None and name.endswith(family.float32) else dtype


def weights_to_send(model: nn.Module) -> Iterator[WeightToSend]:
    """Every tensor of a policy in the order of its parameters, tied ones once, under their first name; then buffers.

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
    yield from _buffers(model)


def _buffers(model: nn.Module) -> Iterator[WeightToSend]:
    """Each buffer that a checkpoint holds (a router's bias); ZeRO-3 does not shard them."""
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in saved:
            yield WeightToSend(name, (), lambda b=buffer: b.data, buffer)  # type: ignore[misc]


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
