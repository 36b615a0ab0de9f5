"""What a round needs from a rollout engine: three methods that return futures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from openrlhf_mtp.sync.errors import SyncError, SyncTimeout
from openrlhf_mtp.sync.waiting import Deadline


class Engine(Protocol):
    """One rollout engine (all its tensor-parallel workers), called without blocking."""

    def sync_manifest(self) -> Future[dict[str, Any]]:
        """`sync.readback.engine_manifest` of its first worker."""

    def sync_init(self, init_info: dict[str, Any]) -> Future[Any]:
        """Every worker joins the group (`sync.receiver.MTPInitInfo`)."""

    def sync_round(self, plan: dict[str, Any]) -> Future[list[dict[str, Any]]]:
        """Every worker receives `plan["policy"]` and, if present, `plan["head"]` (`sync.receiver.MTPUpdateInfo`),
        then returns `sync.readback.effective_digests`."""


class ActorEngine:
    """An `Engine` over a Ray actor handle whose actor has these three methods. Needs no import of Ray."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def sync_manifest(self) -> Future[dict[str, Any]]:
        return self._handle.sync_manifest.remote().future()

    def sync_init(self, init_info: dict[str, Any]) -> Future[Any]:
        return self._handle.sync_init.remote(init_info).future()

    def sync_round(self, plan: dict[str, Any]) -> Future[list[dict[str, Any]]]:
        return self._handle.sync_round.remote(plan).future()


class Calls:
    """The same call on every engine: raises as soon as one fails, and names the engines that do not answer."""

    def __init__(
        self, engines: Sequence[Engine], what: str, call: Callable[[int, Engine], Future[Any]]
    ) -> None:
        self._what = what
        self._futures = [call(number, engine) for number, engine in enumerate(engines)]

    def check(self) -> None:
        """Raise SyncError if a call has failed; otherwise return at once."""
        for number, future in enumerate(self._futures):
            error = future.exception() if future.done() else None
            if error is not None:
                raise SyncError(f"{self._what} failed in engine {number}: {error}") from error

    def results(self, deadline: Deadline) -> list[Any]:
        """Wait for all. Raises SyncError like `check`, SyncTimeout at the deadline."""
        while not all(future.done() for future in self._futures):
            self.check()
            if deadline.passed():
                late = ", ".join(str(i) for i, future in enumerate(self._futures) if not future.done())
                raise SyncTimeout(f"{self._what}: no answer from engine {late} within {deadline}")
            time.sleep(0.002)
        self.check()
        return [future.result() for future in self._futures]
