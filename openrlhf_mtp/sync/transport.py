"""The transport of a bucket's bytes. `choose_backend` picks one.

| transport | where | how |
|---|---|---|
| ipc | every worker is on the device of a trainer rank | each rank hands its buckets over in shared memory |
| nccl | trainer and workers have a GPU each | rank 0 broadcasts from GPU to GPU |
| gloo | everywhere | rank 0 broadcasts through host memory and TCP |

`sync.handover` is the first. A transport that broadcasts is a function that connects a rank to all others and returns a
`Link`. To add one, write such a function, name it in `CONNECT` and in `sync.store.Broadcast`, and say in `_obstacles`
which devices it serves.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from openrlhf_mtp.sync.store import Backend, Broadcast, Rendezvous, SealedStore, own_address

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


def machine() -> str:
    """A name equal in all processes that reach one another's local sockets: this boot, and the network namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # a sandbox that hides it
        boot = platform.node()
    return f"{boot} {os.readlink('/proc/self/ns/net')}"


@dataclass(frozen=True)
class Place:
    """A device on a machine; processes with equal places can share memory.

    Attributes:
        machine: `machine()`.
        device: `device_id` of it.
    """

    machine: str
    device: str

    @classmethod
    def of(cls, device: torch.device) -> Place:
        """The place of a device of this process."""
        return cls(machine(), device_id(device))

    def to_wire(self) -> list[str]:
        """Plain values that any RPC can carry: the arguments of the class."""
        return [self.machine, self.device]


def choose_backend(
    requested: Literal["auto"] | Backend, ranks: Sequence[Place], workers: Sequence[Place]
) -> Backend:
    """The transport for `mtp.sync.backend`; `auto` takes the first that works.

    Args:
        requested: the job's setting.
        ranks: where each trainer rank is.
        workers: where each worker of each engine is.

    Raises:
        ValueError: one is asked for that cannot work.
    """
    obstacles = _obstacles(ranks, workers)
    if requested == "auto":
        return next(backend for backend, obstacle in obstacles.items() if not obstacle)
    if obstacles[requested]:
        raise ValueError(
            f"mtp.sync.backend: {requested} cannot be used because {obstacles[requested]}; use auto or gloo"
        )
    return requested


def _obstacles(ranks: Sequence[Place], workers: Sequence[Place]) -> dict[Backend, str]:
    """The obstacle to each transport, "" for none; the fastest transport first."""
    sender = [ranks[0], *workers]  # rank 0 alone broadcasts
    nccl = ""
    if CPU in {place.device for place in sender}:
        nccl = "the trainer or a worker of an engine runs without a GPU"
    elif len(set(sender)) < len(sender):
        nccl = "two of them share a GPU, which NCCL refuses"
    alone = [number for number, worker in enumerate(workers) if worker not in ranks]
    ipc = f"worker {alone[0]} of the engines shares its device with no trainer rank" if alone else ""
    return {"ipc": ipc, "nccl": nccl, "gloo": ""}


def serving_ranks(ranks: Sequence[Place], workers: Sequence[Place]) -> list[int]:
    """List for each worker the trainer rank that hands buckets over to it: one on its device; several take turns."""
    counts: Counter[Place] = Counter()
    serving = []
    for worker in workers:
        here = [rank for rank, place in enumerate(ranks) if place == worker]
        serving.append(here[counts[worker] % len(here)])
        counts[worker] += 1
    return serving


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


CONNECT: dict[Broadcast, Callable[[Rendezvous, int, SealedStore, torch.device, timedelta], Link]] = {
    "gloo": connect_gloo,
    "nccl": connect_nccl,
}
