"""The transport of a bucket's bytes: gloo through host memory, NCCL between GPUs. `choose_backend` picks one.

A transport is a function that connects a rank to all others and returns a `Link`. To add one, write such a function,
name it in `CONNECT` and in `sync.store.Backend`, and say in `choose_backend` which devices it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist

from openrlhf_mtp.sync.store import Backend, Rendezvous, SealedStore, own_address

CPU = "cpu"


def uses_own_sync(asked: bool) -> bool:
    """Whether this process sends or receives weights by `openrlhf_mtp.sync`, and not by OpenRLHF's own means.

    A head needs it, and so do LoRA adapters, which OpenRLHF sends under names that no engine knows (`asked`). On a host
    without CUDA it serves every job, because OpenRLHF's broadcasts and shared handles are CUDA's.
    """
    return asked or not torch.cuda.is_available()


def device_id(device: torch.device) -> str:
    """A name equal on all processes that use the same device: "cpu" or the GPU's UUID."""
    if device.type == "cpu":
        return CPU
    return str(torch.cuda.get_device_properties(device).uuid)


def choose_backend(
    requested: Literal["auto", "nccl", "gloo"], trainer: str, engines: Sequence[str]
) -> Backend:
    """The transport for `mtp.sync.backend`: NCCL needs a GPU of its own for every rank, gloo works everywhere.

    Args:
        requested: the job's setting.
        trainer: `device_id` of the trainer's rank 0.
        engines: `device_id` of each engine.

    Raises:
        ValueError: NCCL is asked for and cannot work.
    """
    devices = [trainer, *engines]
    if CPU in devices:
        obstacle = "the trainer or an engine runs without a GPU"
    elif len(set(devices)) < len(devices):
        obstacle = "two of them share a GPU, which NCCL refuses"
    else:
        return "gloo" if requested == "gloo" else "nccl"
    if requested == "nccl":
        raise ValueError(f"mtp.sync.backend: nccl cannot be used because {obstacle}; use auto or gloo")
    return "gloo"


@dataclass(frozen=True)
class Link:
    """A rank's connection to all others.

    Attributes:
        ranks: torch's process group, or an object with its `broadcast(tensors, options)`, which starts a transfer and
            returns a `Work`.
        device: where a bucket must lie to travel.
        abort: ends a transfer that runs; None where nothing can.
    """

    ranks: Any
    device: torch.device
    abort: Callable[[], None] | None


def connect_gloo(
    at: Rendezvous, rank: int, store: SealedStore, device: torch.device, timeout: timedelta
) -> Link:
    """Connect over TCP, listening on the address by which this machine reaches the trainer.

    gloo's own choice is what the host name resolves to, which need not be reachable.
    """
    gloo: Any = dist.ProcessGroupGloo  # torch's stub lacks its options
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=own_address(at.host, at.port))]
    ranks = gloo(dist.PrefixStore("group", store), rank, at.world_size, options)
    return Link(ranks, torch.device(CPU), abort=None)


def connect_nccl(
    at: Rendezvous, rank: int, store: SealedStore, device: torch.device, timeout: timedelta
) -> Link:
    """Connect GPU to GPU.

    NCCL's watchdog reads the store from threads of its own until the process ends, where Python code (the sealed store)
    is not safe. It gets the store underneath, under a prefix made of the token.
    """
    torch.cuda.set_device(device)
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = 10 * timeout  # ours comes first; NCCL's own watchdog would end the process
    ranks: Any = dist.ProcessGroupNCCL(
        dist.PrefixStore(f"group {at.token}", store.unsealed), rank, at.world_size, options
    )
    ranks.broadcast([torch.zeros(1, device=device)], dist.BroadcastOptions()).wait()
    return Link(ranks, device, abort=ranks.abort)


CONNECT: dict[Backend, Callable[[Rendezvous, int, SealedStore, torch.device, timedelta], Link]] = {
    "gloo": connect_gloo,
    "nccl": connect_nccl,
}
