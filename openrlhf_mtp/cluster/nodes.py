"""The pods of a run, and those that Ray does not have. Pure functions of `ray.nodes()`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_mtp.cluster.placement import ROLE_LABEL


@dataclass(frozen=True)
class Need:
    """Pods that a role needs: `pods` of them with `gpus` GPUs each. `Need.parse("trainer", "2x8")`."""

    role: str
    pods: int
    gpus: int

    @classmethod
    def parse(cls, role: str, text: str) -> Need:
        """Parse a need that is written PODSxGPUS.

        Raises:
            ValueError: anything else.
        """
        pods, x, gpus = text.partition("x")
        if not (x and pods.isdigit() and gpus.isdigit()):
            raise ValueError(f"{role}: got {text!r}, expected PODSxGPUS, for example 2x8")
        return cls(role, int(pods), int(gpus))


@dataclass(frozen=True)
class Node:
    """A living Ray node: its id, its pod's name, address, role and GPUs."""

    id: str
    name: str
    address: str
    role: str
    gpus: float

    def __str__(self) -> str:
        return f"{self.name} ({self.role}, {self.address})"


def living(nodes: Sequence[dict[str, Any]]) -> list[Node]:
    """Every living node with a role, trainers first, by name."""
    found = [
        Node(
            id=node["NodeID"],
            name=node["NodeManagerHostname"],
            address=node["NodeManagerAddress"],
            role=node["Labels"][ROLE_LABEL],
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in nodes
        if node["Alive"] and ROLE_LABEL in node.get("Labels", {})
    ]
    order = {"trainer": 0, "rollout": 1}
    return sorted(found, key=lambda node: (order.get(node.role, 2), node.name))


def missing(needs: Sequence[Need], nodes: Sequence[Node]) -> list[str]:
    """A line for each role that is short: role, needed, present. Empty when all are there."""
    lines = []
    for need in needs:
        present = [node for node in nodes if node.role == need.role]
        wanted = need.pods * need.gpus
        gpus = sum(node.gpus for node in present)
        if len(present) < need.pods or gpus < wanted:
            lines.append(
                f"role {need.role}: needed {need.pods} pod(s) with {wanted} GPUs in all, "
                f"present {len(present)} with {gpus:g}"
            )
    return lines


def on_node(node: Node) -> dict[str, Any]:
    """Options that put a Ray task or actor on a node and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}
