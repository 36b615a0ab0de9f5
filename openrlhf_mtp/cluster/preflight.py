"""`python -m openrlhf_mtp.cluster.preflight`: what would make a run hang or fail late, found before it starts.

In a Ray job on the head pod, in this order: KubeRay is not too old, all pods are there and have their GPUs, which the
driver sees too, and their RDMA devices, /dev/shm is large enough, the checkpoint path can be written and is the same
folder everywhere, and one broadcast reaches every pod, over RDMA where there is any.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from openrlhf_mtp.cluster import pods
from openrlhf_mtp.cluster.broadcast import Broadcasts, NoCudaError, Reached
from openrlhf_mtp.cluster.nccl_log import TCP
from openrlhf_mtp.cluster.nodes import Need, Node, living, missing, on_node
from openrlhf_mtp.cluster.operator_version import OldOperatorError, check_operator, operator_version

LOOK_S = 120.0
"""A pod that has not looked at its mounts by then hangs in one of them."""
DRIVERS = "13 needs driver 580 or newer, or 535 on data-centre GPUs with cuda-compat in the image"
"""By NVIDIA's release notes; docker/versions.env has the image's CUDA."""
MIN_SHM_BYTES = 256 << 20
"""Less than this is a container's default (64 MiB) or a mistake; NCCL and the object store fail in it."""


class PreflightError(RuntimeError):
    """The run cannot start; the message says where and what to do."""


def wait_for_pods(
    needs: Sequence[Need],
    wait_s: float,
    *,
    nodes: Callable[[], list[dict[str, Any]]],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Node]:
    """Wait until every role has its pods and GPUs; returns the nodes.

    Raises:
        PreflightError: not within `wait_s`, with role, needed and present.
    """
    deadline, told = clock() + wait_s, ""
    while True:
        present = living(nodes())
        short = missing(needs, present)
        if not short:
            return present
        if clock() >= deadline:
            raise PreflightError(
                f"not all pods came within {wait_s:g} s.\n  "
                + "\n  ".join(short)
                + "\nLook at them with kubectl describe: Pending pods say what they wait for (GPUs, a volume, a quota)"
            )
        if (text := "; ".join(short)) != told:
            print(f"waiting: {text}", flush=True)
            told = text
        sleep(min(2.0, max(0.0, deadline - clock())))


def check_pods(
    nodes: Sequence[Node], run: Path, *, shared: bool, nvidia: bool, rdma: bool, ray: ModuleType
) -> None:
    """Each pod looks at its own GPUs and RDMA devices, at its /dev/shm and at the run folder.

    Raises:
        PreflightError: every problem of every pod.
    """
    token = pods.write_token(run) if shared else ""
    look = ray.remote(num_cpus=0)(pods.look)
    asked = [
        look.options(**on_node(node)).remote(
            str(run), token, MIN_SHM_BYTES, int(node.gpus) if nvidia else 0, rdma=rdma
        )
        for node in nodes
    ]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=LOOK_S)
    hangs = f"has not answered within {LOOK_S:g} s; does a volume hang? (kubectl describe pod)"
    problems = [
        f"{node}: {problem}"
        for node, one in zip(nodes, asked, strict=True)
        for problem in (ray.get(one) if one in answered else [hangs])
    ]
    if problems:
        raise PreflightError("these pods cannot run the job:\n  " + "\n  ".join(problems))


def check_network(
    nodes: Sequence[Node], broadcast_s: float, broadcasts: Broadcasts, *, rdma: bool = False
) -> str:
    """One broadcast from the first trainer over all pods; returns how long it took and what it went over, in words.

    Raises:
        PreflightError: it did not end in time, with the pairs that cannot talk; torch finds no GPU in a pod; or NCCL
            took TCP where there is to be RDMA.
    """
    with_gpus = [node for node in nodes if node.gpus]
    try:
        reached, silent = broadcasts.reach_all(with_gpus, broadcast_s)
    except NoCudaError as problem:
        raise PreflightError(
            f"torch finds no GPU in these pods:\n  {problem}\n"
            f"The nodes' driver must fit the image's CUDA: {DRIVERS}. "
            "An image with torch's CPU build finds none anywhere"
        ) from None
    if reached is not None:
        if rdma:
            check_transports(with_gpus, reached)
        over = sorted({name for names in reached.transports for name in names})
        return f"in {reached.seconds:.1f} s{', over ' if over else ''}{' and '.join(over)}"
    pairs = "\n  ".join(f"{one} and {other}" for one, other in silent)
    if not pairs:
        raise PreflightError(
            f"a broadcast over all {len(with_gpus)} pods did not end within {broadcast_s:g} s, though every pair can "
            "talk; set network.nccl.debug=INFO and look at what pods print (kubectl logs POD -c ray)"
        )
    raise PreflightError(
        f"a broadcast did not end within {broadcast_s:g} s. These cannot talk to each other:\n  {pairs}\n"
        "Check network.nccl.socketInterface, network.nccl.hca and network policies; network.nccl.debug=INFO says more"
    )


def check_transports(nodes: Sequence[Node], reached: Reached) -> None:
    """Whether NCCL uses the RDMA devices that pods have been given.

    Raises:
        PreflightError: it went over TCP, in these pods.
    """
    slow = [str(node) for node, names in zip(nodes, reached.transports, strict=False) if TCP in names]
    if slow:
        raise PreflightError(
            "NCCL goes over TCP (NET/Socket in its log) between these pods, though network.rdma gives them devices:\n  "
            + "\n  ".join(slow)
            + "\nInfiniBand and RoCE: look at network.nccl.hca (ibv_devinfo in a pod lists adapters that are up) and "
            "at the secondary network. EFA: the image needs aws-ofi-nccl and libfabric. Each pod's nccl-*.log, beside "
            "Ray's logs, says why; network.rdma.enabled=false takes TCP"
        )


def run(arguments: argparse.Namespace) -> None:
    """All checks, a line each."""
    if (version := operator_version()) is not None:
        print(f"preflight: operator KubeRay {version}{check_operator(version)}", flush=True)
    import ray

    ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
    started = time.monotonic()
    needs = [Need.parse(role, getattr(arguments, role)) for role in ("trainer", "rollout")]
    nodes = wait_for_pods([need for need in needs if need.pods], arguments.wait_s, nodes=ray.nodes)
    described = ", ".join(f"{need.pods} {need.role} x {need.gpus} GPUs" for need in needs if need.pods)
    print(f"preflight: pods    {described}, after {time.monotonic() - started:.0f} s")
    check_pods(
        nodes,
        Path(arguments.run),
        shared=arguments.shared,
        nvidia=arguments.nvidia,
        rdma=arguments.rdma,
        ray=ray,
    )
    if arguments.rdma:
        print("preflight: rdma    every pod with GPUs has a verbs device and the library for it")
    print(f"preflight: storage {arguments.run} can be written{' and is shared' if arguments.shared else ''}")
    broadcasts = Broadcasts(ray, nvidia=arguments.nvidia, busy=arguments.busy)
    words = check_network(nodes, arguments.broadcast_s, broadcasts, rdma=arguments.rdma)
    print(f"preflight: network one broadcast reached all pods {words}", flush=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m openrlhf_mtp.cluster.preflight", description=__doc__)
    made.add_argument("--run", required=True, help="the run folder")
    made.add_argument("--trainer", required=True, metavar="PODSxGPUS", help="trainer pods and GPUs of each")
    made.add_argument("--rollout", required=True, metavar="PODSxGPUS", help="rollout pods and GPUs of each")
    made.add_argument("--wait-s", type=float, default=900.0, help="how long pods may take to come")
    made.add_argument("--broadcast-s", type=float, default=120.0, help="how long the broadcast may take")
    made.add_argument("--shared", action="store_true", help="the run folder lies on a volume of all pods")
    made.add_argument("--nvidia", action="store_true", help="GPUs are NVIDIA's: count them, use NCCL")
    made.add_argument("--rdma", action="store_true", help="GPU pods have InfiniBand or RoCE: look for it")
    made.add_argument("--busy", action="store_true", help="a job holds the GPUs: use gloo on the CPUs")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the run can start, 2 when not."""
    try:
        run(parser().parse_args(argv))
    except (PreflightError, OldOperatorError, ValueError) as problem:
        print(f"preflight: error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
