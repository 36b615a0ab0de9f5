"""Notes that ranks leave one another in the store: how far each has come, and that one has given up.

A wait that fails can thus say who is missing and where. A store that no longer answers means that the trainer is gone.
"""

from __future__ import annotations

import time

import torch.distributed as dist

from openrlhf_mtp.sync.errors import SyncError
from openrlhf_mtp.sync.store import TRAINER_RANK
from openrlhf_mtp.sync.waiting import Background, Deadline, poll

DIAGNOSIS_S = 1.0  # how long a dying round may ask the store who is missing
LISTEN_S = 1.0  # how often a waiting rank looks whether another one has given up


class FailureFlag:
    """Tells the others that this rank has given up, and looks now and then whether one of them has."""

    _KEY = "failed"

    def __init__(self, store: dist.Store) -> None:
        self._store = store
        self._asked: Background | None = None
        self._next = time.monotonic() + LISTEN_S

    def set(self, reason: str) -> None:
        """Tell the others, without waiting long for a store that may be gone."""
        call = Background(lambda: self._store.set(self._KEY, reason))
        poll(call.done, Deadline(DIAGNOSIS_S))

    def check(self) -> None:
        """Call this in every turn of a wait; it never waits itself.

        Raises:
            SyncError: another rank has given up.
        """
        if self._asked is None:
            if time.monotonic() >= self._next:
                self._asked = Background(self.reason)
        elif self._asked.done():
            asked, self._asked, self._next = self._asked, None, time.monotonic() + LISTEN_S
            if asked.result() is not None:
                raise SyncError(f"another rank gave up: {asked.result()}")

    def reason(self) -> str | None:
        """Why another rank gave up, or None. Blocks if the store does not answer."""
        return self._store.get(self._KEY).decode() if self._store.check([self._KEY]) else None


class RankNotes:
    """One rank's notes, and its view of the others'.

    Args:
        store: the sealed store.
        rank, world_size: this rank, and how many there are.
        role: readable name of this rank ("engine 1 worker 0"), for the others' errors.

    Attributes:
        failure: the flag by which a rank that gives up ends the waits of all.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, role: str) -> None:
        self._store, self._rank, self._world_size, self._role = store, rank, world_size, role
        self._step = -1
        self.failure = FailureFlag(store)

    def arrive(self, place: str, deadline: Deadline) -> bool:
        """Note that this rank has come to `place`; False when the store does not answer in time."""
        self._step += 1
        note = f"{self._step}|{self._role}|{place}"
        call = Background(lambda: self._store.set(_key(self._rank), note))
        if not poll(call.done, deadline):
            return False
        call.result()
        return True

    def has_everyone_joined(self, deadline: Deadline) -> bool:
        """Whether each rank has left a note; False, too, when the store does not answer in time."""
        keys = [_key(rank) for rank in range(self._world_size)]
        call = Background(lambda: self._store.check(keys))
        return poll(call.done, deadline) and bool(call.result())

    def missing(self) -> str:
        """The ranks that are behind this one, as text; asks the store for at most DIAGNOSIS_S."""
        call = Background(self._behind)
        if not poll(call.done, Deadline(DIAGNOSIS_S)):
            return f"rank {TRAINER_RANK} (trainer), which serves the store, does not answer"
        try:
            behind = call.result()
        except (RuntimeError, ValueError) as error:
            return f"rank {TRAINER_RANK} (trainer), which serves the store, is gone: {error}"
        return "; ".join(behind) or "every rank arrived here, so one of them stalled in the transfer itself"

    def _behind(self) -> list[str]:
        reason = self.failure.reason()
        behind = [] if reason is None else [f"another rank gave up: {reason}"]
        for rank in range(self._world_size):
            if not self._store.check([_key(rank)]):
                behind.append(f"rank {rank} never joined")
                continue
            step, role, place = self._store.get(_key(rank)).decode().split("|")
            if int(step) < self._step:
                behind.append(f"rank {rank} ({role}) is at: {place}")
        return behind


def _key(rank: int) -> str:
    return f"progress/{rank}"
