"""The trainer's side of a round: `Sender.round` sends policy and head to every engine, and compares what it read back.

    sender = open_sync(engines, settings, policy, head)  # in sync.opening: both sides hold the same tensors
    report = sender.round()                              # after the updates of every RL step

A round is one RPC per engine plus one broadcast per bucket, however many parameters there are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.buckets import Bucket, Packer
from openrlhf_mtp.sync.group import SyncGroup
from openrlhf_mtp.sync.manifest import WeightSource
from openrlhf_mtp.sync.readback import Probe, WorkerDigests, add_expected, compare
from openrlhf_mtp.sync.report import SyncReport
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Calls, Deadline

# Columns read back of each matrix after the first round, which reads all. A stale copy differs in any column; over a
# thousand rows, 32 columns see even an update that changed one element in a thousand.
SAMPLED_COLUMNS = 32
MIB = 2**20


class RolloutEngine(Protocol):
    """The calls of a round to a rollout engine (all its tensor-parallel workers), without blocking.

    `rollout.actor.MTPRolloutActor` has these methods, and passes them on to `sync.receiver` in each worker.
    """

    def sync_manifest(self) -> Future[dict[str, Any]]:
        """The tensors of the first worker: `ReceivingWorker.mtp_manifest`."""

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
class Part:
    """One model (policy or head) as each round sends it."""

    source: WeightSource
    buckets: Sequence[Bucket]


@dataclass(frozen=True)
class Round:
    """One round, from its announcement to the comparison.

    Attributes:
        number: 1, 2, ...
        start: when it began, on `time.monotonic`.
        deadline: when it has to be over.
        probe: what is read back after it; None for nothing.
    """

    number: int
    start: float
    deadline: Deadline
    probe: Probe | None

    def place(self, part: str) -> str:
        """Name a model's part of this round, for errors."""
        return f"round {self.number} {part}"


@dataclass(frozen=True)
class Sent:
    """The trainer's broadcasts of a round.

    Attributes:
        expected: part -> checkpoint name -> digest that the engines must read back; empty without a probe.
        pack_s, broadcast_s, digest_s: seconds.
    """

    expected: Mapping[str, Mapping[str, int]]
    pack_s: float
    broadcast_s: float
    digest_s: float


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


class Sender:
    """Policy and head from trainer rank 0 to all engines; `sync.opening.open_sync` makes one.

    Args:
        engines: one handle per rollout engine.
        parts: "policy" and, when the rollouts speculate, "head".
        group: the ranks, connected.
        settings: `mtp.sync` of the job.
    """

    def __init__(
        self,
        engines: Sequence[RolloutEngine],
        parts: Mapping[str, Part],
        group: SyncGroup,
        settings: SyncSettings,
    ) -> None:
        self._engines, self._parts, self._group, self._settings = engines, parts, group, settings
        self._rounds = 0

    def round(self) -> SyncReport:
        """Send policy and head once and, in the rounds that `verify_every` selects, compare what engines read back.

        Raises:
            SyncTimeout, SyncError: an engine failed, hangs or is gone.
            StaleWeights: a verified round, and an engine read back other weights than were sent.
            ValueError: a source changed, or holds NaN. All of these are fatal: engines may be half loaded.
        """
        this = self._next_round()
        try:
            calls = self._announce(this)
            sent = self._send_buckets(this, calls)
            answers = self._finish(this, calls)
        except BaseException as error:
            self._group.fail(str(error))
            raise
        if this.probe is not None:
            compare(sent.expected, answers.digests())
        return self._report(this, sent, answers)

    def close(self) -> None:
        """Leave the group; engines keep their last weights."""
        self._group.close()

    def _next_round(self) -> Round:
        self._rounds += 1
        every, probe = self._settings.verify_every, None
        if every != 0 and (self._rounds - 1) % every == 0:
            probe = Probe(columns=None if self._rounds == 1 else SAMPLED_COLUMNS, seed=self._rounds)
        return Round(self._rounds, time.monotonic(), Deadline(self._settings.timeout_s, ROUND_LIMIT), probe)

    def _announce(self, this: Round) -> Calls:
        """Tell every engine what comes: it pauses, and its workers wait for the first bucket."""
        request: dict[str, Any] = {
            name: {
                "tensors": part.source.manifest.to_wire(),
                "bucket_bytes": self._settings.bucket_mib * MIB,
                "place": this.place(name),
            }
            for name, part in self._parts.items()
        }
        request["probe"] = None if this.probe is None else asdict(this.probe)
        return Calls("sync_round", [engine.sync_round(request) for engine in self._engines])

    def _send_buckets(self, this: Round, calls: Calls) -> Sent:
        """Pack and broadcast bucket after bucket; engines load one while the next is packed.

        The buffer lives as long as the round, so that it takes no memory from rollout and training.
        """
        expected: dict[str, dict[str, int]] = {}
        pack_s = broadcast_s = digest_s = 0.0
        largest = max(bucket.size for part in self._parts.values() for bucket in part.buckets)
        memory = torch.empty(largest, dtype=torch.uint8, device=self._group.device)
        for name, part in self._parts.items():
            packer = Packer(part.source.tensors())
            expected[name] = {}
            for number, bucket in enumerate(part.buckets, start=1):
                buffer = memory[: bucket.size]
                begin = time.monotonic()
                packer.fill(bucket, buffer)
                packed = time.monotonic()
                place = f"{this.place(name)} bucket {number}/{len(part.buckets)}"
                self._group.broadcast(buffer, place, this.deadline, calls.check)
                sent = time.monotonic()
                if this.probe is not None:
                    add_expected(expected[name], this.probe, bucket, buffer)
                pack_s += packed - begin
                broadcast_s += sent - packed
                digest_s += time.monotonic() - sent
            packer.finish()
        return Sent(expected, pack_s, broadcast_s, digest_s)

    def _finish(self, this: Round, calls: Calls) -> Answers:
        """Wait until every engine has loaded the last bucket, read back, and dropped its prefix cache."""
        begin = time.monotonic()
        by_engine = calls.results(this.deadline)
        return Answers(by_engine, waited_s=time.monotonic() - begin)

    def _report(self, this: Round, sent: Sent, answers: Answers) -> SyncReport:
        slowest = max(worker["verify_s"] for workers in answers.by_engine for worker in workers)
        return SyncReport(
            seconds=time.monotonic() - this.start,
            bytes=sum(part.source.manifest.nbytes for part in self._parts.values()),
            buckets=sum(len(part.buckets) for part in self._parts.values()),
            rpc_calls=len(self._engines),
            pack_s=sent.pack_s,
            broadcast_s=sent.broadcast_s,
            engine_s=answers.waited_s,
            verify_s=sent.digest_s + (slowest if this.probe else 0.0),
            verified=this.probe is not None,
        )
