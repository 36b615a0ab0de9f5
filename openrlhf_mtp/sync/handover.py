"""The `ipc` transport: a trainer rank packs a bucket into memory that it shares with the workers on its own device.

A round in messages, for each worker of a rank:

    trainer                          worker
    open (handle of the memory) ──▶  maps it
    bucket (its place)          ──▶  copies the bucket out
                                ◀──  taken: the memory may be filled again
    ...
                                ◀──  released: mapped no longer

Nothing travels between devices, and every rank serves its workers at the same time as the others. The memory lives as
long as the round. Whoever fails says so to the other end or hangs up, and the other end stops at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.sync.doors import Door, Line, wait_for_one
from openrlhf_mtp.sync.errors import SyncError, SyncTimeout
from openrlhf_mtp.sync.shared_memory import SharedMemory, attach
from openrlhf_mtp.sync.waiting import Deadline, no_watch


class Handover:
    """A trainer rank's end: an `Outlet` to the workers that came to its door."""

    def __init__(self, door: Door) -> None:
        self._door, self._place, self._is_open = door, "opening", True
        self._memory: SharedMemory | None = None

    @property
    def has_workers(self) -> bool:
        """Whether any worker is on this rank's device."""
        return bool(self._door.lines)

    def begin(self, size: int) -> Tensor:
        """Share the memory of a round with every worker: [size] uint8 on this rank's device."""
        if not self._is_open:
            raise SyncError(f"{self._who()}: the sync is closed; it does not survive a failed round")
        self._memory = SharedMemory(size, self._door.device)
        for line in self._door.lines:
            handle, file = self._memory.share()
            self._say(line, file, open=handle)
        return self._memory.tensor

    def send(
        self, buffer: Tensor, place: str, deadline: Deadline, watch: Callable[[], None] = no_watch
    ) -> None:
        """Hand the filled memory over, and wait until every worker has copied it out.

        Raises:
            SyncTimeout: names the workers that have not.
            SyncError: a worker is gone or has given up.
        """
        self._place = place
        _finish_work_on(self._door.device)
        for line in self._door.lines:
            self._say(line, bucket=place, size=buffer.numel())
        self._hear_from_all("taken", deadline, watch)

    def end(self, deadline: Deadline, watch: Callable[[], None] = no_watch) -> None:
        """After the last bucket: wait until no worker maps the memory any more, and free it."""
        self._hear_from_all("released", deadline, watch)
        self._free()

    def fail(self, reason: str) -> None:
        """End the round for every worker that still waits in it, and hang up."""
        for line in self._door.lines:
            with contextlib.suppress(SyncError):
                line.say(gave_up=_signed(self._who(), reason))
        self.close()

    def close(self) -> None:
        """Hang up, and free what is shared."""
        self._is_open = False
        self._door.close()
        self._free()

    def _free(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    def _say(self, line: Line, file: int | None = None, **message: Any) -> None:
        with _told_by(self._who(), self._place):
            line.say(file, **message)

    def _hear_from_all(self, word: str, deadline: Deadline, watch: Callable[[], None]) -> None:
        waiting = list(self._door.lines)
        while waiting:
            ready = wait_for_one(waiting, deadline, watch)
            if not ready:
                late = ", ".join(line.peer for line in waiting)
                raise SyncTimeout(f"{self._who()}: {self._place}: nothing from {late} within {deadline}")
            for line in ready:
                with _told_by(self._who(), self._place):
                    message, _ = line.hear()
                assert word in message, (word, message)
                waiting.remove(line)

    def _who(self) -> str:
        return f"sync trainer rank {self._door.card.rank} (ipc)"


class Taker:
    """A worker's end: an `Inlet` from the trainer rank on its device.

    Args:
        line: to that rank.
        role: names this worker in errors.
        device: where its weights lie.
    """

    def __init__(self, line: Line, role: str, device: torch.device) -> None:
        self._line, self.role, self._device = line, role, device
        self._shared: Tensor | None = None

    def receive(self, size: int, place: str, deadline: Deadline) -> Tensor:
        """Wait for the next bucket and copy it out: [size] uint8 on this worker's device.

        Raises:
            SyncTimeout: it does not come.
            SyncError: the rank is gone, has given up, or sends another bucket.
        """
        message = self._next(place, deadline)
        if "open" in message:
            message = self._next(place, deadline)
        if (message.get("bucket"), message.get("size")) != (place, size):
            raise SyncError(f"{self._who()}: expected {place} of {size} bytes, got {message}")
        assert self._shared is not None, "the memory comes before its first bucket"
        buffer = torch.empty(size, dtype=torch.uint8, device=self._device)
        buffer.copy_(self._shared[:size])
        _finish_work_on(self._device)
        with _told_by(self._who(), place):
            self._line.say(taken=place)
        return buffer

    def release(self) -> None:
        """After the last bucket: map the round's memory no longer, and say so."""
        self._shared = None
        with _told_by(self._who(), "after the last bucket"):
            self._line.say(released=True)

    def fail(self, reason: str) -> None:
        """Tell the rank that this worker gives up, and hang up."""
        with contextlib.suppress(SyncError):
            self._line.say(gave_up=_signed(self._who(), reason))
        self.close()

    def close(self) -> None:
        """Hang up and map nothing."""
        self._shared = None
        self._line.close()

    def _next(self, place: str, deadline: Deadline) -> dict[str, object]:
        if not wait_for_one([self._line], deadline):
            raise SyncTimeout(f"{self._who()}: {place}: nothing from {self._line.peer} within {deadline}")
        with _told_by(self._who(), place):
            message, file = self._line.hear()
        if "open" in message:
            self._shared = attach(message["open"], file, self._device)
        return message

    def _who(self) -> str:
        return f"sync {self.role} (ipc)"


@contextlib.contextmanager
def _told_by(who: str, place: str) -> Iterator[None]:
    """Name the process, and how far it has come, in errors of its lines."""
    try:
        yield
    except SyncError as error:
        raise SyncError(f"{who}: {place}: {error}") from error


def _signed(who: str, reason: str) -> str:
    """A reason with the name of whoever gives up; errors of our own begin with it."""
    return reason if reason.startswith(who) else f"{who}: {reason}"


def _finish_work_on(device: torch.device) -> None:
    """Wait until what was written is there for another process, and what was read is ours."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
