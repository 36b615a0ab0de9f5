"""A broadcast over all pods with a hard limit, and the pairs that cannot talk when it does not end.

NCCL and gloo hang where a pod cannot reach another, and their own timeouts do not cover every phase. So each attempt
runs in Ray actors that are killed when the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

from openrlhf_mtp.cluster.nodes import Node

ELEMENTS = 1 << 20
"""4 MiB: larger than what is sent inline, small enough for any network."""
PAIR_LIMIT_S = 30.0


def broadcast(
    rank: int, world_size: int, address: str, backend: Literal["nccl", "gloo"], timeout_s: float
) -> None:
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


class Peer:
    """One pod's part in a broadcast, as a Ray actor."""

    def address(self) -> str:
        """HOST:PORT where this pod can be reached; the port was free a moment ago."""
        import socket

        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def has_cuda(self) -> bool:
        """Whether this pod sees a GPU."""
        import torch

        return torch.cuda.is_available()

    def join(self, rank: int, world_size: int, address: str, backend: Any, timeout_s: float) -> None:
        """Take part."""
        broadcast(rank, world_size, address, backend, timeout_s)


class NoCudaError(RuntimeError):
    """torch finds no GPU in these pods; the message names them."""


def attempt(
    nodes: Sequence[Node],
    limit_s: float,
    *,
    busy: bool,
    nvidia: bool,
    ray: Any,
    on: Callable[[Node], dict[str, Any]],
) -> float | None:
    """One broadcast over `nodes`, from the first; the seconds it took, None when it failed or did not end in time.

    Raises:
        NoCudaError: it is to go over NCCL and not all pods can.
    """
    started = time.monotonic()
    kind = ray.remote(num_cpus=0, num_gpus=0 if busy else 1)(Peer)
    peers = [kind.options(**on(node)).remote() for node in nodes]

    def left() -> float:
        return max(0.1, limit_s - (time.monotonic() - started))

    try:
        cuda = ray.get([peer.has_cuda.remote() for peer in peers], timeout=left())
        address = ray.get(peers[0].address.remote(), timeout=left())
        if nvidia and not busy and not all(cuda):
            raise NoCudaError(", ".join(str(node) for node, has in zip(nodes, cuda, strict=True) if not has))
        backend = "nccl" if nvidia and not busy else "gloo"
        joined = [
            peer.join.remote(rank, len(peers), address, backend, left()) for rank, peer in enumerate(peers)
        ]
        ray.get(joined, timeout=left())
    except (ray.exceptions.RayError, TimeoutError) as problem:
        print(f"broadcast over {', '.join(node.name for node in nodes)}: {_first_line(problem)}", flush=True)
        return None
    finally:
        for peer in peers:
            ray.kill(peer)
    return time.monotonic() - started


def reach_all(
    nodes: Sequence[Node],
    limit_s: float,
    *,
    busy: bool,
    nvidia: bool,
    ray: Any,
    on: Callable[[Node], dict[str, Any]],
) -> tuple[float | None, list[tuple[Node, Node]]]:
    """Broadcast over all nodes; where that fails, over pairs, to name those that cannot talk.

    Pairs are the first trainer with every other pod, which is how weights go out, and neighbours in the list.

    Returns:
        (seconds, []) when all were reached, else (None, silent pairs).
    """
    if len(nodes) < 2:
        return 0.0, []
    how = {"busy": busy, "nvidia": nvidia, "ray": ray, "on": on}
    seconds = attempt(nodes, limit_s, **how)
    if seconds is not None:
        return seconds, []
    limit = min(PAIR_LIMIT_S, limit_s)
    return None, [pair for pair in pairs(nodes) if attempt(pair, limit, **how) is None]


def pairs(nodes: Sequence[Node]) -> list[tuple[Node, Node]]:
    """The first node with every other, then neighbours that are not among those."""
    star = [(nodes[0], other) for other in nodes[1:]]
    return [*star, *(pair for pair in pairwise(nodes) if pair not in star)]


def _first_line(problem: BaseException) -> str:
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[-1] if text else ''}"
