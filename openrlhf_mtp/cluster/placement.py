"""Placement groups that fail with numbers instead of waiting for ever when the cluster is too small."""

from __future__ import annotations

from typing import Any


class ClusterTooSmallError(RuntimeError):
    """The Ray cluster cannot hold what the job asks for."""


def total_gpus(nodes: list[dict[str, Any]]) -> float:
    """GPUs of all living nodes, from `ray.nodes()`."""
    return sum(node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"])


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
    """A stand-in for `ray.util.placement_group` that waits at most `timeout_s` seconds, and can give all back.

    OpenRLHF creates a group and waits for it without a limit; when the GPUs are there but taken, that never ends.
    A call has Ray's signature and returns a group that is ready. OpenRLHF never removes its groups, so a group's
    GPUs stay taken when its actors have ended, until `release`.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._groups: list[Any] = []

    def __call__(self, bundles: list[dict[str, float]], strategy: str = "PACK", **kwargs: Any) -> Any:
        import ray
        from ray.util.placement_group import placement_group, remove_placement_group

        group = placement_group(bundles, strategy=strategy, **kwargs)
        if not group.wait(timeout_seconds=self.timeout_s):
            remove_placement_group(group)
            needed = sum(bundle.get("GPU", 0.0) for bundle in bundles)
            free = ray.available_resources()
            raise ClusterTooSmallError(
                f"no place for {needed:g} GPUs ({len(bundles)} bundles, {strategy}) within {self.timeout_s:g} s: "
                f"{free.get('GPU', 0.0):g} of {total_gpus(ray.nodes()):g} GPUs and "
                f"{free.get('CPU', 0.0):g} CPUs are free"
            )
        self._groups.append(group)
        return group

    def release(self) -> None:
        """Remove every group that was created here; actors that still run in one are ended by Ray."""
        from ray.util.placement_group import remove_placement_group

        for group in self._groups:
            remove_placement_group(group)
        self._groups.clear()
