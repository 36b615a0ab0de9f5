"""Broadcasts that cannot hang: gloo or NCCL on a store and process group of our own, every wait against a deadline.

The trainer's rank 0 serves the store. Every rank notes its progress there ("joined", "round 3 bucket 2/7"), so when
a deadline passes the error can say who is missing and where. A store that itself no longer answers means that the
trainer is gone. The default process group of torch.distributed is never touched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from openrlhf_mtp.sync.errors import SyncError, SyncTimeout

Backend = Literal["nccl", "gloo"]
POLL_S = (0.0005, 0.02)  # first and longest pause between two looks at a running operation
DIAGNOSIS_S = 1.0  # how long a dying round may ask the store who is missing
TRAINER_RANK = 0


class Deadline:
    """A point in time; `remaining()` never goes below zero."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def passed(self) -> bool:
        return self.remaining() == 0.0


def no_watch() -> None:
    """Nothing else to look at while waiting."""


def poll(done: Callable[[], bool], deadline: Deadline, watch: Callable[[], None] = no_watch) -> bool:
    """Look until `done()` (True) or the deadline (False). `watch` may raise to end the wait at once."""
    pause, longest = POLL_S
    while not done():
        watch()
        if deadline.passed():
            return False
        time.sleep(min(pause, deadline.remaining()))
        pause = min(2 * pause, longest)
    return True


class Background:
    """One call in a daemon thread, for library calls that know no deadline (connecting, asking the store)."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: BaseException | None = None

        def body() -> None:
            try:
                self._value = call()
            except BaseException as error:  # handed to the waiting thread by result()
                self._error = error

        self._thread = threading.Thread(target=body, daemon=True, name="mtp-sync")
        self._thread.start()

    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


def serve_store(host: str, timeout_s: float) -> dist.TCPStore:
    """The trainer's store on a free port of `host` (read it from `.port`); it lives as long as the object."""
    return dist.TCPStore(
        host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout_s)
    )


class Broadcaster:
    """One rank of the group trainer (rank 0, the only sender) + all engine workers.

    `roles[r]` is a readable name for rank r ("engine 1 worker 0"), used in errors. Building one blocks until all
    ranks are there. A failure closes the group for good: the run has to end.
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
        device: torch.device | None = None,
        store: dist.Store | None = None,
        watch: Callable[[], None] = no_watch,
    ) -> None:
        assert 0 <= rank < world_size, (rank, world_size)
        self.backend, self.rank, self.world_size, self.role = backend, rank, world_size, role
        self.timeout_s = timeout_s
        self.device = device if backend == "nccl" and device is not None else torch.device("cpu")
        self._place, self._step = "joining the group", 0
        self._group: Any = None
        deadline = Deadline(timeout_s)
        self._store = store if store is not None else self._connect_store(host, port, deadline)
        self._arrive()
        self._wait_for_all(deadline, watch)
        self._group = self._connect_group(deadline, watch)

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
            self._arrive()
            options = dist.BroadcastOptions()
            options.rootRank = TRAINER_RANK
            options.asyncOp = True
            work = self._group.broadcast([buffer], options)
            if not poll(work.is_completed, deadline, watch):
                raise self._timeout(deadline, self._missing())
            work.wait()
            if self.backend == "nccl":
                torch.cuda.current_stream(self.device).synchronize()
        except SyncError:
            self.close()
            raise
        except RuntimeError as error:
            missing = self._missing()
            self.close()
            raise SyncError(f"{self._who()}: {place}: a peer is gone ({missing}): {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the group. Destroying a group waits for its running operations, so that happens in the background."""
        abandoned = [self._group]
        self._group = None

        def destroy() -> None:
            with suppress(RuntimeError):
                if abandoned[0] is not None:
                    abandoned[0].abort()
            abandoned.clear()

        Background(destroy)

    def _connect_store(self, host: str, port: int, deadline: Deadline) -> dist.Store:
        def connect() -> dist.TCPStore:
            return dist.TCPStore(
                host,
                port,
                is_master=False,
                wait_for_workers=False,
                timeout=timedelta(seconds=deadline.seconds),
            )

        call = Background(connect)
        if not poll(call.done, Deadline(deadline.seconds + DIAGNOSIS_S)):  # it keeps its own timeout, roughly
            raise self._timeout(deadline, f"no answer from the trainer's store at {host}:{port}")
        try:
            return call.result()
        except RuntimeError as error:
            raise SyncTimeout(
                f"{self._who()}: {self._place}: no trainer at {host}:{port} within {deadline.seconds:g} s: {error}"
            ) from error

    def _connect_group(self, deadline: Deadline, watch: Callable[[], None]) -> Any:
        """Connect to all peers; in the background, because connecting itself can block on a dead one."""
        store = dist.PrefixStore("group", self._store)
        timeout = timedelta(seconds=max(deadline.seconds, 1.0))

        def connect() -> Any:
            if self.backend == "gloo":
                return dist.ProcessGroupGloo(store, self.rank, self.world_size, timeout)
            torch.cuda.set_device(self.device)
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = 10 * timeout  # ours comes first; NCCL's own watchdog would end the process
            group = dist.ProcessGroupNCCL(store, self.rank, self.world_size, options)
            group.broadcast([torch.zeros(1, device=self.device)], dist.BroadcastOptions()).wait()
            return group

        call = Background(connect)
        if not poll(call.done, deadline, watch):
            raise self._timeout(deadline, "all ranks arrived, but connecting them did not end")
        try:
            return call.result()
        except RuntimeError as error:
            raise SyncTimeout(f"{self._who()}: connecting the sync group failed: {error}") from error

    def _key(self, rank: int) -> str:
        return f"progress/{rank}"

    def _arrive(self) -> None:
        self._store.set(self._key(self.rank), f"{self._step}|{self.role}|{self._place}")

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
            behind = []
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
        return SyncTimeout(f"{self._who()}: {self._place}: nothing within {deadline.seconds:g} s; {why}")
