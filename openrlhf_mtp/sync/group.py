"""The group of the trainer's rank 0 and all engine workers: it broadcasts buckets, and no wait in it is endless.

Every rank leaves a note of each place that it comes to ("joining the group", "round 3 policy bucket 2/7"), so that a
deadline that passes names the ranks that are missing. The default process group of torch.distributed is never touched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from openrlhf_mtp.sync import rank_notes
from openrlhf_mtp.sync.errors import SyncError, SyncTimeout
from openrlhf_mtp.sync.store import TRAINER_RANK, Rendezvous, SealedStore, connect_store
from openrlhf_mtp.sync.transport import CONNECT, Link
from openrlhf_mtp.sync.waiting import Background, Deadline, no_watch, poll

JOINING = "joining the group"


class SyncGroup:
    """One rank of the group. A failure closes the group for good: the run has to end.

    Args:
        at: where ranks meet.
        rank: this process; rank 0 is the trainer, which alone sends.
        role: a readable name for this rank ("engine 1 worker 0"), used in every rank's errors.
        device: where this rank's weights lie.
        store: the trainer's own end of the store; None connects to it.
        watch: called while this waits for the others; may raise to end the wait.

    Raises:
        SyncTimeout: not all ranks came in time. Making a group blocks until they are there.
        SyncError: the trainer's store is gone.
    """

    def __init__(
        self,
        at: Rendezvous,
        rank: int,
        role: str,
        *,
        device: torch.device | None = None,
        store: dist.TCPStore | None = None,
        watch: Callable[[], None] = no_watch,
    ) -> None:
        assert 0 <= rank < at.world_size, (rank, at.world_size)
        self.role, self.timeout_s = role, at.timeout_s
        self._at, self._rank, self._place = at, rank, JOINING
        self._is_busy = False
        deadline = Deadline(at.timeout_s)
        sealed = SealedStore(self._connect_store(deadline) if store is None else store, at.token)
        self._notes = rank_notes.RankNotes(sealed, rank, at.world_size, role)
        self._arrive(deadline)
        self._wait_for_all(deadline, watch)
        self._link: Link | None = self._connect(sealed, device or torch.device("cpu"), deadline, watch)
        self.device = self._link.device

    def broadcast(
        self,
        buffer: Tensor,
        place: str,
        deadline: Deadline,
        watch: Callable[[], None] = no_watch,
    ) -> None:
        """Send (rank 0) or receive (others) `buffer` in place.

        Args:
            buffer: [size] uint8 on `device`.
            place: names it in errors, for example "round 3 policy bucket 1/4".
            deadline: when to give up.
            watch: called while this waits; may raise to end the wait.

        Raises:
            SyncTimeout: the deadline passed.
            SyncError: a peer is gone or has given up, or the group is closed.
        """
        if self._link is None:
            raise SyncError(f"{self._who()}: the sync group is closed; it does not survive a failed round")
        self._place = place
        try:
            self._transfer(self._link, buffer, deadline, watch)
        except BaseException as error:
            self._notes.failure.set(str(error))
            self.close()
            raise

    def fail(self, reason: str) -> None:
        """End the round for every rank that still waits in it, and leave the group.

        A group that is closed has said why already, or has left in peace.
        """
        if self._link is not None:
            self._notes.failure.set(f"{self._who()}: {reason}")
            self.close()

    def close(self) -> None:
        """Leave the group. With a transfer still running the group is kept until the process ends, because destroying
        it would wait for that transfer; NCCL can abort it."""
        link, self._link = self._link, None
        if link is None or not self._is_busy:
            return
        if link.abort is not None:
            Background(link.abort)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(link.ranks))

    def _transfer(self, link: Link, buffer: Tensor, deadline: Deadline, watch: Callable[[], None]) -> None:
        def look_around() -> None:
            watch()
            self._notes.failure.check()

        options = dist.BroadcastOptions()
        options.rootRank = TRAINER_RANK
        options.asyncOp = True
        try:
            self._arrive(deadline)
            self._is_busy = True
            work = link.ranks.broadcast([buffer], options)
            if not poll(work.is_completed, deadline, look_around):
                raise self._timeout(deadline, self._notes.missing())
            work.wait()
            if link.device.type == "cuda":
                torch.cuda.current_stream(link.device).synchronize()
        except SyncError:
            raise
        except RuntimeError as error:
            raise SyncError(
                f"{self._who()}: {self._place}: a peer is gone ({self._notes.missing()}): {error}"
            ) from error
        self._is_busy = False

    def _arrive(self, deadline: Deadline) -> None:
        if not self._notes.arrive(self._place, deadline):
            raise self._timeout(deadline, self._notes.missing())

    def _connect_store(self, deadline: Deadline) -> dist.TCPStore:
        at = self._at
        call = Background(lambda: connect_store(at.host, at.port, deadline.seconds))
        patience = Deadline(deadline.seconds + rank_notes.DIAGNOSIS_S)  # it keeps its own timeout, roughly
        if not poll(call.done, patience):
            raise self._timeout(deadline, f"no answer from the trainer's store at {at.host}:{at.port}")
        try:
            return call.result()
        except RuntimeError as error:
            raise SyncTimeout(
                f"{self._who()}: {self._place}: no trainer at {at.host}:{at.port} within {deadline.seconds:g} s: "
                f"{error}"
            ) from error

    def _wait_for_all(self, deadline: Deadline, watch: Callable[[], None]) -> None:
        try:
            if not poll(lambda: self._notes.has_everyone_joined(deadline), deadline, watch):
                raise self._timeout(deadline, self._notes.missing())
        except dist.DistError as error:
            raise SyncError(f"{self._who()}: {self._place}: the trainer's store is gone: {error}") from error

    def _connect(
        self, store: SealedStore, device: torch.device, deadline: Deadline, watch: Callable[[], None]
    ) -> Link:
        """Connect to all peers; in the background, because connecting itself can block on a dead one."""
        timeout = timedelta(seconds=max(deadline.seconds, 1.0))
        call = Background(lambda: CONNECT[self._at.backend](self._at, self._rank, store, device, timeout))
        if not poll(call.done, deadline, watch):
            raise self._timeout(deadline, "all ranks arrived, but connecting them did not end")
        try:
            link: Link = call.result()
        except (RuntimeError, ValueError) as error:
            raise SyncTimeout(f"{self._who()}: connecting the sync group failed: {error}") from error
        return link

    def _who(self) -> str:
        return f"sync {self.role} (rank {self._rank} of {self._at.world_size}, {self._at.backend})"

    def _timeout(self, deadline: Deadline, why: str) -> SyncTimeout:
        return SyncTimeout(f"{self._who()}: {self._place}: nothing within {deadline}; {why}")
