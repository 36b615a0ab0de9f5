"""A transport as a round sees it: on the trainer an outlet for buckets, in a worker the inlet that they come out of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from openrlhf_mtp.sync.doors import knock
from openrlhf_mtp.sync.group import SyncGroup
from openrlhf_mtp.sync.handover import Taker
from openrlhf_mtp.sync.store import Rendezvous
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Deadline, no_watch


class Outlet(Protocol):
    """The buckets of one trainer rank, on their way to workers. `sync.handover.Handover` and `Broadcasts` are outlets.

    In a round `begin` comes first, then `send` for each bucket, then `end`. Errors are those of `sync.errors`; none of
    them can be survived, and whoever gets one calls `fail`.
    """

    def begin(self, size: int) -> Tensor:
        """Memory for the largest bucket: [size] uint8 where buckets are to be packed."""

    def send(
        self, buffer: Tensor, place: str, deadline: Deadline, watch: Callable[[], None] = no_watch
    ) -> None:
        """Send the filled part of that memory; afterwards it may be filled again.

        Args:
            buffer: the first bytes of the memory.
            place: names the bucket in errors, for example "round 3 policy bucket 1/4".
            deadline: when to give up.
            watch: called while this waits; may raise to end the wait.
        """

    def end(self, deadline: Deadline, watch: Callable[[], None] = no_watch) -> None:
        """After the last bucket: give the memory back."""

    def fail(self, reason: str) -> None:
        """End the round for everyone who waits in it."""

    def close(self) -> None:
        """Leave; workers keep their last weights."""


class Inlet(Protocol):
    """The buckets of one worker, as they arrive. `sync.handover.Taker` and `BroadcastInlet` are inlets.

    Attributes:
        role: names this worker in errors.
    """

    role: str

    def receive(self, size: int, place: str, deadline: Deadline) -> Tensor:
        """Wait for the bucket that `place` names: [size] uint8, new memory each time."""

    def release(self) -> None:
        """After the last bucket of a round."""

    def fail(self, reason: str) -> None:
        """End the round for everyone who waits in it."""

    def close(self) -> None:
        """Leave the trainer alone."""


class Broadcasts:
    """An outlet through a group of rank 0 and all workers (gloo, NCCL).

    Args:
        group: rank 0 of it.
        device: where buckets are packed and checked; gloo sends a copy in host memory.
    """

    def __init__(self, group: SyncGroup, device: torch.device) -> None:
        self.group, self._device = group, device

    def begin(self, size: int) -> Tensor:
        """Memory for the largest bucket, as `Outlet.begin`."""
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def send(
        self, buffer: Tensor, place: str, deadline: Deadline, watch: Callable[[], None] = no_watch
    ) -> None:
        """Broadcast a bucket, as `Outlet.send`: everyone has it when this returns."""
        self.group.broadcast(buffer.to(self.group.device), place, deadline, watch)

    def end(self, deadline: Deadline, watch: Callable[[], None] = no_watch) -> None:
        """Nothing is left: the memory is that of whoever asked for it."""

    def fail(self, reason: str) -> None:
        """End the round for everyone, as `Outlet.fail`."""
        self.group.fail(reason)

    def close(self) -> None:
        """Leave the group, as `Outlet.close`."""
        self.group.close()


class BroadcastInlet:
    """An inlet from such a group.

    Args:
        group: this worker's rank of it.
        device: where its weights lie; what gloo receives in host memory is moved there.
    """

    def __init__(self, group: SyncGroup, device: torch.device) -> None:
        self._group, self._device, self.role = group, device, group.role

    def receive(self, size: int, place: str, deadline: Deadline) -> Tensor:
        """Wait for a bucket, as `Inlet.receive`."""
        buffer = torch.empty(size, dtype=torch.uint8, device=self._group.device)
        self._group.broadcast(buffer, place, deadline)
        return buffer.to(self._device)

    def release(self) -> None:
        """Nothing is held after a bucket was taken."""

    def fail(self, reason: str) -> None:
        """End the round for everyone, as `Inlet.fail`."""
        self._group.fail(reason)

    def close(self) -> None:
        """Leave the group, as `Inlet.close`."""
        self._group.close()


def connect_inlet(init_info: Mapping[str, Any], worker: int, device: torch.device) -> Inlet:
    """Connect a worker to the trainer; blocks until that is there.

    Args:
        init_info: fields of `sync.receiver.MTPInitInfo`.
        worker: its tensor-parallel rank.
        device: where its weights lie.

    Raises:
        SyncTimeout, SyncError: the trainer is not there.
    """
    role = f"engine {init_info['engine']} worker {worker}"
    if init_info.get("doors") is not None:
        rank, address = init_info["doors"][worker]
        deadline = Deadline(init_info["timeout_s"], ROUND_LIMIT)
        return Taker(knock(rank, address, init_info["token"], role, deadline), role, device)
    at = Rendezvous(**init_info["rendezvous"])
    return BroadcastInlet(SyncGroup(at, init_info["rank_offset"] + worker, role, device=device), device)
