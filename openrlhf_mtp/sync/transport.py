"""Broadcasts that cannot hang: gloo or NCCL on a store and process group of our own, every wait against a deadline.

The trainer's rank 0 serves the store. Every rank notes its progress there ("joined", "round 3 bucket 2/7"), so when
a deadline passes the error can say who is missing and where. A store that itself no longer answers means that the
trainer is gone. The default process group of torch.distributed is never touched.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from openrlhf_mtp.sync.errors import SyncError, SyncTimeout
from openrlhf_mtp.sync.store import SealedStore, connect_store, own_address
from openrlhf_mtp.sync.waiting import Background, Deadline, no_watch, poll

Backend = Literal["nccl", "gloo"]
DIAGNOSIS_S = 1.0  # how long a dying round may ask the store who is missing
ALARM_S = 1.0  # how often a waiting rank looks whether another one has given up
TRAINER_RANK = 0


class FailureFlag:
    """Looks now and then, without ever waiting, whether another rank has given up; then raises SyncError."""

    _KEY = "failed"

    def __init__(self, store: dist.Store) -> None:
        self._store = store
        self._asked: Background | None = None
        self._next = time.monotonic() + ALARM_S

    def ring(self, reason: str) -> None:
        """Tell the others, without waiting long for a store that may be gone."""
        call = Background(lambda: self._store.set(self._KEY, reason))
        poll(call.done, Deadline(DIAGNOSIS_S))

    def listen(self) -> None:
        """Called in every turn of a wait."""
        if self._asked is None:
            if time.monotonic() >= self._next:
                self._asked = Background(self.reason)
        elif self._asked.done():
            asked, self._asked, self._next = self._asked, None, time.monotonic() + ALARM_S
            if asked.result() is not None:
                raise SyncError(f"another rank gave up: {asked.result()}")

    def reason(self) -> str | None:
        """Why another rank gave up, or None. Blocks if the store does not answer."""
        return self._store.get(self._KEY).decode() if self._store.check([self._KEY]) else None


class Broadcaster:
    """One rank of the group trainer (rank 0, the only sender) + all engine workers.

    `role` is a readable name for this rank ("engine 1 worker 0"), used in every rank's errors; `token` is the run's
    secret (`sync.store`), and `store` the trainer's own end of it. Building one blocks until all ranks are there. A
    failure closes the group for good: the run has to end.
    """

    def __init__(
        self,
        backend: Backend,
        host: str,
        port: int,
        rank: int,
        world_size: int,
        timeout_s: float,
        role: str,
        *,
        token: str,
        device: torch.device | None = None,
        store: dist.TCPStore | None = None,
        watch: Callable[[], None] = no_watch,
    ) -> None:
        assert 0 <= rank < world_size, (rank, world_size)
        self.backend, self.rank, self.world_size, self.role = backend, rank, world_size, role
        self.timeout_s = timeout_s
        self.device = device if backend == "nccl" and device is not None else torch.device("cpu")
        self._place, self._step = "joining the group", 0
        self._group: Any = None
        self._running = False
        deadline = Deadline(timeout_s)
        plain = store if store is not None else self._connect_store(host, port, deadline)
        self._store = SealedStore(plain, token)
        self._alarm = FailureFlag(self._store)
        self._arrive(deadline)
        self._wait_for_all(deadline, watch)
        connect = self._gloo(own_address(host, port)) if backend == "gloo" else self._nccl(plain, token)
        self._group = self._connect_group(connect, deadline, watch)

    def broadcast(
        self,
        buffer: Tensor,
        place: str,
        deadline: Deadline,
        watch: Callable[[], None] = no_watch,
    ) -> None:
        """Send (rank 0) or receive (others) `buffer` in place. `place` names it, for example "round 3 bucket 1/4".

        Raises SyncTimeout when the deadline passes, SyncError when a peer is gone, or whatever `watch` raises.
        """
        if self._group is None:
            raise SyncError(f"{self._who()}: the sync group is closed; it does not survive a failed round")
        self._place, self._step = place, self._step + 1
        try:
            self._transfer(buffer, deadline, watch)
        except BaseException as error:
            self._alarm.ring(str(error))
            self.close()
            raise

    def _transfer(self, buffer: Tensor, deadline: Deadline, watch: Callable[[], None]) -> None:
        def look_around() -> None:
            watch()
            self._alarm.listen()

        options = dist.BroadcastOptions()
        options.rootRank = TRAINER_RANK
        options.asyncOp = True
        try:
            self._arrive(deadline)
            self._running = True
            work = self._group.broadcast([buffer], options)
            if not poll(work.is_completed, deadline, look_around):
                raise self._timeout(deadline, self._missing())
            work.wait()
            if self.backend == "nccl":
                torch.cuda.current_stream(self.device).synchronize()
        except SyncError:
            raise
        except RuntimeError as error:
            raise SyncError(
                f"{self._who()}: {self._place}: a peer is gone ({self._missing()}): {error}"
            ) from error
        self._running = False

    def fail(self, reason: str) -> None:
        """End the round for every rank that still waits in it, and leave the group."""
        self._alarm.ring(f"{self._who()}: {reason}")
        self.close()

    def close(self) -> None:
        """Leave the group. With an operation still running the group is kept until the process ends, because
        destroying it would wait for that operation; NCCL can abort it."""
        group, self._group = self._group, None
        if group is None or not self._running:
            return
        if self.backend == "nccl":
            Background(group.abort)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))

    def _connect_store(self, host: str, port: int, deadline: Deadline) -> dist.TCPStore:
        call = Background(lambda: connect_store(host, port, deadline.seconds))
        if not poll(call.done, Deadline(deadline.seconds + DIAGNOSIS_S)):  # it keeps its own timeout, roughly
            raise self._timeout(deadline, f"no answer from the trainer's store at {host}:{port}")
        try:
            return call.result()
        except RuntimeError as error:
            raise SyncTimeout(
                f"{self._who()}: {self._place}: no trainer at {host}:{port} within {deadline.seconds:g} s: {error}"
            ) from error

    def _gloo(self, address: str) -> Callable[[timedelta], Any]:
        """How to connect over gloo, listening on `address` alone (gloo's own choice is what the host name resolves to,
        which need not be reachable)."""

        def connect(timeout: timedelta) -> Any:
            gloo: Any = dist.ProcessGroupGloo  # torch's stub lacks its options
            options = gloo._Options()
            options._timeout = timeout
            options._devices = [gloo.create_device(hostname=address)]
            return gloo(dist.PrefixStore("group", self._store), self.rank, self.world_size, options)

        return connect

    def _nccl(self, plain: dist.TCPStore, token: str) -> Callable[[timedelta], Any]:
        """How to connect over NCCL. Its watchdog reads the store from threads of its own until the process ends, where
        Python code (the sealed store) is not safe: it gets the plain one, under a prefix made of the token."""

        def connect(timeout: timedelta) -> Any:
            torch.cuda.set_device(self.device)
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = 10 * timeout  # ours comes first; NCCL's own watchdog would end the process
            group: Any = dist.ProcessGroupNCCL(
                dist.PrefixStore(f"group {token}", plain), self.rank, self.world_size, options
            )
            group.broadcast([torch.zeros(1, device=self.device)], dist.BroadcastOptions()).wait()
            return group

        return connect

    def _connect_group(
        self, connect: Callable[[timedelta], Any], deadline: Deadline, watch: Callable[[], None]
    ) -> Any:
        """Connect to all peers; in the background, because connecting itself can block on a dead one."""
        timeout = timedelta(seconds=max(deadline.seconds, 1.0))
        call = Background(lambda: connect(timeout))
        if not poll(call.done, deadline, watch):
            raise self._timeout(deadline, "all ranks arrived, but connecting them did not end")
        try:
            return call.result()
        except (RuntimeError, ValueError) as error:
            raise SyncTimeout(f"{self._who()}: connecting the sync group failed: {error}") from error

    def _key(self, rank: int) -> str:
        return f"progress/{rank}"

    def _arrive(self, deadline: Deadline) -> None:
        note = f"{self._step}|{self.role}|{self._place}"
        call = Background(lambda: self._store.set(self._key(self.rank), note))
        if not poll(call.done, deadline):
            raise self._timeout(deadline, self._missing())
        call.result()

    def _wait_for_all(self, deadline: Deadline, watch: Callable[[], None]) -> None:
        keys = [self._key(rank) for rank in range(self.world_size)]

        def everyone() -> bool:
            call = Background(lambda: self._store.check(keys))
            return poll(call.done, deadline) and call.result()

        try:
            if not poll(everyone, deadline, watch):
                raise self._timeout(deadline, self._missing())
        except dist.DistError as error:
            raise SyncError(f"{self._who()}: {self._place}: the trainer's store is gone: {error}") from error

    def _missing(self) -> str:
        """Which ranks are behind this one, as text; asks the store for at most DIAGNOSIS_S."""

        def ask() -> list[str]:
            reason = self._alarm.reason()
            behind = [] if reason is None else [f"another rank gave up: {reason}"]
            for rank in range(self.world_size):
                if not self._store.check([self._key(rank)]):
                    behind.append(f"rank {rank} never joined")
                    continue
                step, role, place = self._store.get(self._key(rank)).decode().split("|")
                if int(step) < self._step:
                    behind.append(f"rank {rank} ({role}) is at: {place}")
            return behind

        call = Background(ask)
        if not poll(call.done, Deadline(DIAGNOSIS_S)):
            return f"rank {TRAINER_RANK} (trainer), which serves the store, does not answer"
        try:
            behind = call.result()
        except (RuntimeError, ValueError) as error:
            return f"rank {TRAINER_RANK} (trainer), which serves the store, is gone: {error}"
        return "; ".join(behind) or "every rank arrived here, so one of them stalled in the transfer itself"

    def _who(self) -> str:
        return f"sync {self.role} (rank {self.rank} of {self.world_size}, {self.backend})"

    def _timeout(self, deadline: Deadline, why: str) -> SyncTimeout:
        return SyncTimeout(f"{self._who()}: {self._place}: nothing within {deadline}; {why}")
