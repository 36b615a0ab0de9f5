"""The trainer's tensors for a sync: policy and head under checkpoint names, gathered when ZeRO-3 shards them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import deepspeed
import ray
import torch
import torch.distributed as dist
from torch import Tensor, nn

from openrlhf_mtp.config.settings.mtp import MTPSettings, SyncSettings
from openrlhf_mtp.heads.formats.head_folder import named_tensors
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.sync.calls import ActorEngine
from openrlhf_mtp.sync.manifest import Manifest, TensorSpec
from openrlhf_mtp.sync.sender import WeightSync
from openrlhf_mtp.sync.source import WeightSource
from openrlhf_mtp.training.adapters import outgoing
from openrlhf_mtp.training.trunk import unwrapped


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def policy_source(model: nn.Module, dtype: str, *, sharded: bool) -> WeightSource:
    """All parameters of the policy, adapters merged; tied ones once, under their first name.

    Args:
        model: the Hugging Face model.
        dtype: the engine's, on the wire.
        sharded: true under ZeRO-3: each tensor is gathered while it is packed, a collective over all ranks.
    """

    def full_shape(parameter: Any) -> tuple[int, ...]:
        return tuple(parameter.ds_shape if sharded else parameter.shape)

    sent = tuple(outgoing(model))

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for tensor in sent:
            with deepspeed.zero.GatheredParameters(list(tensor.parameters), enabled=sharded):
                yield tensor.name, tensor.value()

    specs = tuple(TensorSpec(tensor.name, full_shape(tensor.parameters[0]), dtype) for tensor in sent)
    return WeightSource(Manifest(specs), tensors)


def head_source(head: MTPHead, dtype: str) -> WeightSource:
    """All parameters of the head, which is never sharded."""

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, parameter in named_tensors(head):
            yield name, parameter.data

    specs = tuple(TensorSpec(name, tuple(p.shape), dtype) for name, p in named_tensors(head))
    return WeightSource(Manifest(specs), tensors)


def open_weight_sync(
    strategy: Any, actor: Any, head: MTPHead | None, engines: list[Any], mtp: MTPSettings | None
) -> WeightSync:
    """Connect this trainer to the engines; every rank calls it, rank 0 talks.

    The head is left out when the rollouts do not draft.
    """
    model = unwrapped(actor.model)
    dtype = mtp.rollout.dtype if mtp is not None else _dtype_name(next(model.parameters()).dtype)
    drafting = head is not None and mtp is not None and mtp.rollout.speculate
    sync = WeightSync(
        [ActorEngine(engine) for engine in engines],
        mtp.sync if mtp is not None else SyncSettings(),
        policy_source(model, dtype, sharded=strategy.args.ds.zero_stage == 3),
        head_source(head, dtype) if drafting and head is not None else None,
        host=ray.util.get_node_ip_address(),
        device=torch.device(torch.cuda.current_device()),
        rank=dist.get_rank(),
    )
    sync.open()
    return sync
