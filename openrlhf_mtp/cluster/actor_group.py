"""OpenRLHF's group of Ray actors, always in a placement group of its role.

OpenRLHF makes a placement group only where a node of the group has more than one GPU. With one, it starts the actors as
they come: on any node with a free GPU, and waiting for ever where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def placed_actor_group(placement_group: Callable[..., Any]) -> type:
    """A subclass of `RayActorGroup` that asks `placement_group` for the GPUs it was given none for."""
    from openrlhf.trainer.ray.launcher import RayActorGroup

    class PlacedActorGroup(RayActorGroup):  # type: ignore[misc]
        def _initiate_actors(self, pg: Any, num_gpus_per_actor: float) -> None:
            if pg is None:
                bundles = [{"GPU": 1, "CPU": 1}] * (self._num_nodes * self._num_gpus_per_node)
                pg = placement_group(bundles, strategy="PACK")
            super()._initiate_actors(pg, num_gpus_per_actor)

    return PlacedActorGroup
