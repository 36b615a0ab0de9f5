"""One round on the trainer's rank 0: start the engines, send the buckets, wait, compare."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from openrlhf_mtp.sync.buckets import Bucket, pack, unpack
from openrlhf_mtp.sync.calls import Calls, Engine
from openrlhf_mtp.sync.digest import digest, sampled_columns
from openrlhf_mtp.sync.errors import StaleWeights
from openrlhf_mtp.sync.source import WeightSource
from openrlhf_mtp.sync.transport import Broadcaster
from openrlhf_mtp.sync.verify import stale
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Deadline


@dataclass(frozen=True)
class Probe:
    """What is read back after a round: `columns` of every matrix (None: all), chosen by `seed`."""

    columns: int | None
    seed: int

    def digest(self, tensor: Tensor) -> int:
        """The trainer's digest of what the engines will read back of `tensor`, [rows, columns] or [rows]."""
        if tensor.dim() < 2:
            return digest(tensor)
        numbers = sampled_columns(tensor.shape[1], self.columns, self.seed)
        return digest(tensor) if numbers is None else digest(tensor[:, numbers], columns=numbers)

    def to_wire(self) -> dict[str, Any]:
        return {"columns": self.columns, "seed": self.seed}


@dataclass(frozen=True)
class SyncReport:
    """What one round did; times in seconds on the trainer's rank 0.

    seconds: the whole round. pack_s: gathering, casting and checksums. broadcast_s: sending. engine_s: waiting for
    the engines after the last bucket (loading and reading back). verify_s: digests, the trainer's plus the slowest
    worker's (which is part of engine_s). rpc_calls: one per engine, whatever the number of parameters.
    """

    seconds: float
    bytes: int
    buckets: int
    rpc_calls: int
    pack_s: float
    broadcast_s: float
    engine_s: float
    verify_s: float
    verified: bool


class Round:
    """State of a running round."""

    def __init__(
        self,
        number: int,
        engines: Sequence[Engine],
        sources: Mapping[str, WeightSource],
        plans: Mapping[str, Sequence[Bucket]],
        bucket_bytes: int,
        broadcaster: Broadcaster,
        buffer: Tensor,
        probe: Probe | None,
    ) -> None:
        self._engines, self._sources, self._plans = engines, sources, plans
        self._broadcaster, self._buffer, self._probe = broadcaster, buffer, probe
        self._places = {part: f"round {number} {part}" for part in sources}
        self._request = {
            part: {
                "tensors": source.manifest.to_wire(),
                "bucket_bytes": bucket_bytes,
                "place": self._places[part],
                "probe": None if probe is None else probe.to_wire(),
            }
            for part, source in sources.items()
        }
        self._expected: dict[str, dict[str, int]] = {part: {} for part in sources}
        self._seconds = {"pack": 0.0, "broadcast": 0.0, "verify": 0.0}

    def run(self) -> SyncReport:
        """See `WeightSync.round`."""
        start = time.monotonic()
        deadline = Deadline(self._broadcaster.timeout_s, ROUND_LIMIT)
        calls = Calls(self._engines, "sync_round", lambda _, engine: engine.sync_round(self._request))
        try:
            for part in self._sources:
                self._send(part, deadline, calls)
            sent = time.monotonic()
            reports = calls.results(deadline)
        except BaseException as error:
            self._broadcaster.fail(str(error))
            raise
        engine_s = time.monotonic() - sent
        self._compare(reports)
        slowest = max(worker["seconds"]["verify"] for workers in reports for worker in workers)
        return SyncReport(
            seconds=time.monotonic() - start,
            bytes=sum(source.manifest.nbytes for source in self._sources.values()),
            buckets=sum(len(buckets) for buckets in self._plans.values()),
            rpc_calls=len(self._engines),
            pack_s=self._seconds["pack"],
            broadcast_s=self._seconds["broadcast"],
            engine_s=engine_s,
            verify_s=self._seconds["verify"] + (slowest if self._probe else 0.0),
            verified=self._probe is not None,
        )

    def _send(self, part: str, deadline: Deadline, calls: Calls) -> None:
        tensors: Iterator[tuple[str, Tensor]] = iter(self._sources[part].tensors())
        buckets = self._plans[part]
        for number, bucket in enumerate(buckets, start=1):
            marks = [time.monotonic()]
            buffer = self._buffer[: bucket.size]
            pack(bucket, tensors, buffer)
            marks.append(time.monotonic())
            place = f"{self._places[part]} bucket {number}/{len(buckets)}"
            self._broadcaster.broadcast(buffer, place, deadline, calls.check)
            marks.append(time.monotonic())
            if self._probe is not None:
                digests = {name: self._probe.digest(tensor) for name, tensor in unpack(bucket, buffer)}
                self._expected[part].update(digests)
            marks.append(time.monotonic())
            for step, begin, end in zip(self._seconds, marks, marks[1:], strict=False):
                self._seconds[step] += end - begin
        for name, _ in tensors:
            raise ValueError(
                f"the weights no longer follow their manifest: {name} came after the last tensor"
            )

    def _compare(self, reports: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        if self._probe is None:
            return
        problems = [
            f"engine {number} {part}: {line}"
            for number, workers in enumerate(reports)
            for part, expected in self._expected.items()
            for line in stale(expected, [worker["digests"][part] for worker in workers])
        ]
        if problems:
            raise StaleWeights(
                "after the round these weights are not the ones the engines compute with:\n  "
                + "\n  ".join(problems)
            )
