"""Placement of roles on pods, with placement groups that fail with numbers instead of waiting forever.

On Kubernetes the nodes of a Ray cluster carry a label, `openrlhf-mtp.io/role: trainer` or `rollout`, and each role's
groups ask for it. The chart says so in the environment:

    OPENRLHF_MTP_PLACEMENT            roles: by that label; anywhere (default): wherever there are GPUs
    OPENRLHF_MTP_PLACEMENT_TIMEOUT_S  how long a group may take to be placed
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

ROLE_LABEL = "openrlhf-mtp.io/role"
Role = Literal["trainer", "rollout"]

PLACEMENT = "OPENRLHF_MTP_PLACEMENT"
TIMEOUT = "OPENRLHF_MTP_PLACEMENT_TIMEOUT_S"


class ClusterTooSmallError(RuntimeError):
    """The Ray cluster cannot hold what the job asks for."""


def total_gpus(nodes: list[dict[str, Any]], role: str | None = None) -> float:
    """GPUs of all living nodes, or of those with a role, from `ray.nodes()`."""
    counted: float = sum(
        node["Resources"].get("GPU", 0.0)
        for node in nodes
        if node["Alive"] and role in (None, node.get("Labels", {}).get(ROLE_LABEL))
    )
    return counted


def require_gpus(needed: int, *, what: str) -> None:
    """Check the cluster before anything is started.

    Raises:
        ClusterTooSmallError: fewer GPUs than needed, with both numbers.
    """
    import ray

    present = total_gpus(ray.nodes())
    if present < needed:
        raise ClusterTooSmallError(
            f"the job needs {needed} GPUs ({what}) and the Ray cluster has {present:g}. "
            "Lower actor.num_gpus_per_node, vllm.num_engines or vllm.tensor_parallel_size, share GPUs with "
            "train.colocate_all, or add nodes."
        )


class Placements:
    """Stand-ins for `ray.util.placement_group` that wait at most `timeout_s` seconds, and can give all back.

    OpenRLHF creates a group and waits for it without a limit; when the GPUs are there but taken, or on nodes of another
    role, that never ends. A call has Ray's signature and returns a group that is ready. OpenRLHF never removes its
    groups, so a group's GPUs stay taken when its actors have ended, until `release`.
    """

    def __init__(self, timeout_s: float, *, by_role: bool = False) -> None:
        self.timeout_s = timeout_s
        self.by_role = by_role
        self._groups: list[Any] = []

    @classmethod
    def from_environment(cls, timeout_s: float, environ: Mapping[str, str] = os.environ) -> Placements:
        """As the chart asks for; `timeout_s` where it says nothing.

        Raises:
            ValueError: a setting that is none.
        """
        placement = environ.get(PLACEMENT, "anywhere")
        if placement not in ("roles", "anywhere"):
            raise ValueError(f"{PLACEMENT}: got {placement!r}, expected roles or anywhere")
        return cls(float(environ.get(TIMEOUT, timeout_s)), by_role=placement == "roles")

    def for_role(self, role: Role) -> Callable[..., Any]:
        """The stand-in whose groups lie on nodes of this role, where placement is by role."""
        return partial(self, role=role if self.by_role else None)

    def __call__(
        self,
        bundles: list[dict[str, float]],
        strategy: str = "PACK",
        *,
        role: Role | None = None,
        **kwargs: Any,
    ) -> Any:
        import ray
        from ray.util.placement_group import placement_group, remove_placement_group

        selector = {} if role is None else {"bundle_label_selector": [{ROLE_LABEL: role}] * len(bundles)}
        group = placement_group(bundles, strategy=strategy, **selector, **kwargs)
        if not group.wait(timeout_seconds=self.timeout_s):
            remove_placement_group(group)
            raise ClusterTooSmallError(
                _no_place(bundles, strategy, role, self.timeout_s, ray.nodes(), ray.available_resources())
            )
        self._groups.append(group)
        return group

    def release(self) -> None:
        """Remove every group that was created here; actors that still run in one are ended by Ray."""
        from ray.util.placement_group import remove_placement_group

        for group in self._groups:
            remove_placement_group(group)
        self._groups.clear()


def placed_actor_group(placement_group: Callable[..., Any]) -> type:
    """A subclass of OpenRLHF's `RayActorGroup` whose actors are always in a placement group of their role.

    OpenRLHF makes a placement group where a node of the group has more than one GPU. With one, it starts the actors as
    they come: on any node with a free GPU, and waiting forever where there is none.
    """
    from openrlhf.trainer.ray.launcher import RayActorGroup

    class PlacedActorGroup(RayActorGroup):  # type: ignore[misc]
        def _initiate_actors(self, pg: Any, num_gpus_per_actor: float) -> None:
            if pg is None:
                bundles = [{"GPU": 1, "CPU": 1}] * (self._num_nodes * self._num_gpus_per_node)
                pg = placement_group(bundles, strategy="PACK")
            super()._initiate_actors(pg, num_gpus_per_actor)

    return PlacedActorGroup


def _no_place(
    bundles: list[dict[str, float]],
    strategy: str,
    role: Role | None,
    timeout_s: float,
    nodes: list[dict[str, Any]],
    free: Mapping[str, float],
) -> str:
    """Why a group was given up: role, needed, present."""
    needed = sum(bundle.get("GPU", 0.0) for bundle in bundles)
    text = (
        f"no place for {needed:g} GPUs ({len(bundles)} bundles, {strategy}) within {timeout_s:g} s: "
        f"{free.get('GPU', 0.0):g} of {total_gpus(nodes):g} GPUs and {free.get('CPU', 0.0):g} CPUs are free"
    )
    if role is None:
        return f"{text}. {TIMEOUT} sets how long to wait"
    return (
        f"{text}; needs {needed:g} GPUs with role={role}, the cluster has {total_gpus(nodes, role):g}. "
        f"Compare the pods with role={role} (replicas, gpus, Pending?) with the job's GPUs"
    )
