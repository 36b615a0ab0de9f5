"""The trainer's side of a round: `Sender.round` sends policy and head to every engine, and compares the read-back.

    sender = open_sync(engines, settings, policy, head)  # in sync.opening: both sides hold the same tensors
    report = sender.round()                              # after the updates of every RL step

A round is one RPC per engine plus one transfer per bucket, however many parameters there are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from openrlhf_mtp.config.sync_time import bucket_bytes
from openrlhf_mtp.sync.handover import Handover
from openrlhf_mtp.sync.outlets import Outlet
from openrlhf_mtp.sync.readback import WorkerDigests, compare
from openrlhf_mtp.sync.report import SyncReport
from openrlhf_mtp.sync.rounds import Parts, Round, Rounds, Sent, bytes_of, send_buckets
from openrlhf_mtp.sync.waiting import Calls

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.mtp import SyncSettings


class RolloutEngine(Protocol):
    """The calls of a round to a rollout engine (all its tensor-parallel workers), without blocking.

    `rollout.actor.MTPRolloutActor` has these methods, and passes them on to `sync.receiver` in each worker.
    """

    def sync_manifest(self) -> Future[dict[str, Any]]:
        """The tensors of the engine and its workers' places: `sync.manifest.held_by_engine`."""

    def sync_init(self, init_info: dict[str, Any]) -> Future[Any]:
        """Every worker joins the group: fields of `sync.receiver.MTPInitInfo`."""

    def sync_round(self, request: dict[str, Any]) -> Future[list[dict[str, Any]]]:
        """Every worker receives, then answers what it read back: `ReceivingWorker.mtp_sync_round`."""


class RayEngine:
    """A `RolloutEngine` over the Ray handle of a rollout actor."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def sync_manifest(self) -> Future[dict[str, Any]]:
        return self._handle.sync_manifest.remote().future()

    def sync_init(self, init_info: dict[str, Any]) -> Future[Any]:
        return self._handle.sync_init.remote(init_info).future()

    def sync_round(self, request: dict[str, Any]) -> Future[list[dict[str, Any]]]:
        return self._handle.sync_round.remote(request).future()


@dataclass(frozen=True)
class Answers:
    """The engines' answers to a round.

    Attributes:
        by_engine: for each engine, what `ReceivingWorker.mtp_sync_round` returned in each worker.
        waited_s: seconds from the last bucket to the last answer.
    """

    by_engine: Sequence[Sequence[Mapping[str, Any]]]
    waited_s: float

    def digests(self) -> list[list[WorkerDigests]]:
        """List what each worker of each engine read back."""
        return [[worker["digests"] for worker in workers] for workers in self.by_engine]

    def tried(self) -> list[str]:
        """Faults that the engines' trials of packed layers found, one line each."""
        return [
            f"engine {number} {part}: {problem} (worker {rank})"
            for number, workers in enumerate(self.by_engine)
            for rank, worker in enumerate(workers)
            for part, problems in worker["tried"].items()
            for problem in problems
        ]


class Sender:
    """Policy and head from trainer rank 0 to all engines; `sync.opening.open_sync` makes one.

    Args:
        engines: one handle per rollout engine.
        parts: "policy" and, when the rollouts speculate, "head".
        outlet: to the workers, connected.
        settings: `mtp.sync` of the job.
    """

    def __init__(
        self, engines: Sequence[RolloutEngine], parts: Parts, outlet: Outlet, settings: SyncSettings
    ) -> None:
        self._engines, self._parts, self._outlet, self._settings = engines, parts, outlet, settings
        self._rounds = Rounds(settings, parts)

    def round(self) -> SyncReport:
        """Send policy and head once and, in the rounds that `verify_every` selects, compare what engines read back.

        Raises:
            SyncTimeout, SyncError: an engine failed, hangs or is gone.
            StaleWeights: a verified round, and an engine read back other weights than were sent.
            ValueError: a source changed, or holds NaN. All of these are fatal: engines may be half loaded.
        """
        this = self._rounds.next()
        try:
            calls = self._announce(this)
            sent = send_buckets(self._parts, self._outlet, this, this.probe, calls.check)
            answers = self._finish(this, calls)
        except BaseException as error:
            self._outlet.fail(str(error))
            raise
        if this.probe is not None:
            compare(sent.expected, answers.digests(), answers.tried())
        return self._report(this, sent, answers)

    def close(self) -> None:
        """Leave; engines keep their last weights."""
        self._outlet.close()

    def _announce(self, this: Round) -> Calls:
        """Tell every engine what comes: it pauses, and its workers wait for the first bucket."""
        request: dict[str, Any] = {
            name: {
                "tensors": part.source.manifest.to_wire(),
                "bucket_bytes": bucket_bytes(bytes_of(self._parts), self._settings.bucket_mib),
                "place": this.place(name),
                "timeout_s": self._rounds.limit_s,
            }
            for name, part in self._parts.items()
        }
        request["probe"] = None if this.probe is None else asdict(this.probe)
        return Calls("sync_round", [engine.sync_round(request) for engine in self._engines])

    def _finish(self, this: Round, calls: Calls) -> Answers:
        """Wait until every engine has loaded the last bucket, read back, and dropped its prefix cache."""
        begin = time.monotonic()
        self._outlet.end(this.deadline, calls.check)
        by_engine = calls.results(this.deadline)
        return Answers(by_engine, waited_s=time.monotonic() - begin)

    def _report(self, this: Round, sent: Sent, answers: Answers) -> SyncReport:
        slowest = max(worker["verify_s"] for workers in answers.by_engine for worker in workers)
        return SyncReport(
            seconds=time.monotonic() - this.start,
            bytes=bytes_of(self._parts),
            buckets=sum(len(part.buckets) for part in self._parts.values()),
            rpc_calls=len(self._engines),
            pack_s=sent.pack_s,
            broadcast_s=sent.send_s,
            engine_s=answers.waited_s,
            verify_s=sent.digest_s + (slowest if this.probe else 0.0),
            verified=this.probe is not None,
        )


class OtherRank:
    """A trainer rank beside rank 0. It runs through the sources, so that collective gathers match rank 0's, and over
    `ipc` hands its buckets to the workers on its own device.

    Args:
        parts: as rank 0 sends them.
        outlet: to those workers.
        settings: `mtp.sync` of the job.
    """

    def __init__(self, parts: Parts, outlet: Handover, settings: SyncSettings) -> None:
        self._parts, self._outlet = parts, outlet
        self._rounds = Rounds(settings, parts)

    def round(self) -> None:
        """Take part in a round; rank 0 alone verifies it.

        Raises:
            SyncTimeout, SyncError: a worker failed, hangs or is gone.
            ValueError: a source changed, or holds NaN.
        """
        this = self._rounds.next()
        if not self._outlet.has_workers:
            for part in self._parts.values():
                for _ in part.source.tensors():
                    pass
            return
        try:
            send_buckets(self._parts, self._outlet, this, probe=None)
            self._outlet.end(this.deadline)
        except BaseException as error:
            self._outlet.fail(str(error))
            raise

    def close(self) -> None:
        """Leave; engines keep their last weights."""
        self._outlet.close()
