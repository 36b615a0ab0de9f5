"""A broadcast over all pods with a hard limit, and the pairs that cannot talk when it does not end.

NCCL and gloo hang where a pod cannot reach another, and their own timeouts do not cover every phase. So each attempt
runs in Ray actors that are killed when the time is over.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from openrlhf_mtp.cluster.nccl_log import record, transports
from openrlhf_mtp.cluster.nodes import Node, on_node

Backend = Literal["nccl", "gloo"]

ELEMENTS = 1 << 20
"""4 MiB: larger than what is sent inline, small enough for any network."""
PAIR_LIMIT_S = 30.0


def broadcast(rank: int, world_size: int, address: str, backend: Backend, timeout_s: float) -> None:
    """Take part in one broadcast from rank 0.

    Raises:
        RuntimeError: something else arrived than was sent, or torch's own timeout.
    """
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    dist.init_process_group(
        backend,
        init_method=f"tcp://{address}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
    )
    try:
        device = "cuda" if backend == "nccl" else "cpu"
        sent = torch.arange(ELEMENTS, dtype=torch.float32, device=device)
        tensor = sent.clone() if rank == 0 else torch.zeros_like(sent)
        dist.broadcast(tensor, src=0)
        if not torch.equal(tensor, sent):
            raise RuntimeError(f"rank {rank} received other numbers than rank 0 sent")
    finally:
        dist.destroy_process_group()


def free_address(ip: str) -> str:
    """HOST:PORT of an address of this machine, IPv6 in brackets as in a URL; the port was free a moment ago."""
    six = ":" in ip
    with socket.create_server(("", 0), family=socket.AF_INET6 if six else socket.AF_INET) as probe:
        port = probe.getsockname()[1]
    return f"[{ip}]:{port}" if six else f"{ip}:{port}"


class Peer:
    """One pod's part in a broadcast, as a Ray actor."""

    def address(self) -> str:
        """HOST:PORT where this pod can be reached; the port was free a moment ago."""
        import ray

        return free_address(ray.util.get_node_ip_address())

    def without_cuda(self) -> str:
        """Why torch finds no GPU in this pod, in its own words (a driver that is too old, a build without CUDA).

        Empty when it finds one.
        """
        import torch

        if torch.cuda.is_available():
            return ""
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as problem:
            return _first_line(problem).partition(" (Triggered")[0]
        return "no CUDA device"

    def join(self, rank: int, world_size: int, address: str, backend: Backend, timeout_s: float) -> list[str]:
        """Take part; what NCCL went over, see `nccl_log.transports`."""
        if backend != "nccl":
            broadcast(rank, world_size, address, backend, timeout_s)
            return []
        import ray

        node: Any = ray._private.worker._global_node
        log = record(Path(node.get_logs_dir_path()))
        broadcast(rank, world_size, address, backend, timeout_s)
        return transports(log)


class NoCudaError(RuntimeError):
    """torch finds no GPU in these pods; the message names them and says what torch says."""


@dataclass(frozen=True)
class Reached:
    """A broadcast that ended: the seconds it took, and what NCCL went over in each pod; nothing for gloo."""

    seconds: float
    transports: Sequence[list[str]] = ()


@dataclass(frozen=True)
class Broadcasts:
    """The Ray and the transport that make the broadcasts."""

    ray: ModuleType
    nvidia: bool
    """GPUs are NVIDIA's: over NCCL."""
    busy: bool
    """A job holds the GPUs: over gloo on the CPUs."""

    def over(self, nodes: Sequence[Node], limit_s: float) -> Reached | None:
        """One broadcast from the first node; None when it failed or did not end in time.

        Raises:
            NoCudaError: it is to go over NCCL and not all pods can.
        """
        ray, started = self.ray, time.monotonic()
        kind = ray.remote(num_cpus=0, num_gpus=0 if self.busy else 1)(Peer)
        peers = [kind.options(**on_node(node)).remote() for node in nodes]
        backend: Backend = "nccl" if self.nvidia and not self.busy else "gloo"

        def left() -> float:
            return max(0.1, limit_s - (time.monotonic() - started))

        try:
            reasons = ray.get([peer.without_cuda.remote() for peer in peers], timeout=left())
            address = ray.get(peers[0].address.remote(), timeout=left())
            if backend == "nccl" and any(reasons):
                without = [f"{node}: {why}" for node, why in zip(nodes, reasons, strict=True) if why]
                raise NoCudaError("\n  ".join(without))
            joined = [
                peer.join.remote(rank, len(peers), address, backend, left())
                for rank, peer in enumerate(peers)
            ]
            over = ray.get(joined, timeout=left())
        except (ray.exceptions.RayError, TimeoutError) as problem:
            print(
                f"broadcast over {', '.join(node.name for node in nodes)}: {_first_line(problem)}", flush=True
            )
            return None
        finally:
            for peer in peers:
                ray.kill(peer)
        return Reached(time.monotonic() - started, over if backend == "nccl" else ())

    def reach_all(
        self, nodes: Sequence[Node], limit_s: float
    ) -> tuple[Reached | None, list[tuple[Node, Node]]]:
        """Broadcast over all nodes; where that fails, over pairs, to name those that cannot talk.

        Pairs are the first trainer with every other pod, which is how weights go out, and neighbors in the list.

        Returns:
            (the broadcast, []) when all were reached, else (None, silent pairs).
        """
        if len(nodes) < 2:
            return Reached(0.0), []
        reached = self.over(nodes, limit_s)
        if reached is not None:
            return reached, []
        limit = min(PAIR_LIMIT_S, limit_s)
        return None, [pair for pair in pairs(nodes) if self.over(pair, limit) is None]


def pairs(nodes: Sequence[Node]) -> list[tuple[Node, Node]]:
    """The first node with every other, then neighbors that are not among those."""
    star = [(nodes[0], other) for other in nodes[1:]]
    return [*star, *(pair for pair in pairwise(nodes) if pair not in star)]


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[-1] if text else ''}"
