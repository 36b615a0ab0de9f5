"""A round on a trainer rank: its number and limits, and the way of its buckets from the tensors to the outlet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf_mtp.config.sync_time import bucket_bytes, round_limit_s
from openrlhf_mtp.sync.buckets import Bucket, Packer, pack_into_buckets
from openrlhf_mtp.sync.manifest import WeightSource
from openrlhf_mtp.sync.outlets import Outlet
from openrlhf_mtp.sync.readback import Probe, add_expected
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Deadline, no_watch

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.mtp import SyncSettings

# Columns read back of each matrix after the first round, which reads all. A stale copy differs in any column; over a
# thousand rows, 16 columns see even an update that changed one element in a thousand, but for once in ten million.
SAMPLED_COLUMNS = 16


@dataclass(frozen=True)
class Part:
    """One model (policy or head) as each round sends it."""

    source: WeightSource
    buckets: Sequence[Bucket]


Parts = Mapping[str, Part]
"""\"policy\" and, when the rollouts speculate, \"head\"."""


def parts_of(sources: Mapping[str, WeightSource], settings: SyncSettings) -> Parts:
    """The models with the buckets that both sides compute from their manifests."""
    size = bucket_bytes(sum(source.manifest.nbytes for source in sources.values()), settings.bucket_mib)
    return {
        name: Part(source, pack_into_buckets(source.manifest.tensors, size))
        for name, source in sources.items()
    }


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


class Rounds:
    """The rounds of a run as one trainer rank counts them; all ranks count alike.

    Args:
        settings: `mtp.sync` of the job.
        parts: what each round sends, for its limit.
    """

    def __init__(self, settings: SyncSettings, parts: Parts) -> None:
        self._settings, self._number = settings, 0
        self.limit_s = round_limit_s(settings.timeout_s, bytes_of(parts))

    def next(self) -> Round:
        """The round that begins now; `mtp.sync.verify_every` says whether it is verified."""
        self._number += 1
        every, probe = self._settings.verify_every, None
        if every != 0 and (self._number - 1) % every == 0:
            probe = Probe(columns=None if self._number == 1 else SAMPLED_COLUMNS, seed=self._number)
        return Round(self._number, time.monotonic(), Deadline(self.limit_s, ROUND_LIMIT), probe)


def bytes_of(parts: Parts) -> int:
    """Bytes that a round sends to one worker."""
    return sum(part.source.manifest.nbytes for part in parts.values())


@dataclass(frozen=True)
class Sent:
    """The work of a rank in a round.

    Attributes:
        expected: part -> checkpoint name -> digest that the engines must read back; empty without a probe.
        pack_s, send_s, digest_s: seconds.
    """

    expected: Mapping[str, Mapping[str, int]]
    pack_s: float
    send_s: float
    digest_s: float


def send_buckets(
    parts: Parts, outlet: Outlet, this: Round, probe: Probe | None, watch: Callable[[], None] = no_watch
) -> Sent:
    """Pack and send bucket after bucket; engines load one while the next is packed.

    Args:
        parts: what is sent.
        outlet: whose memory lives as long as the round, so that it takes none from rollout and training.
        this: the round.
        probe: for the digests that engines must read back; None on a rank that compares nothing.
        watch: called while this waits; may raise to end the round.
    """
    expected: dict[str, dict[str, int]] = {}
    pack_s = send_s = digest_s = 0.0
    memory = outlet.begin(max(bucket.size for part in parts.values() for bucket in part.buckets))
    for name, part in parts.items():
        packer = Packer(part.source.tensors())
        expected[name] = {}
        for number, bucket in enumerate(part.buckets, start=1):
            buffer = memory[: bucket.size]
            begin = time.monotonic()
            packer.fill(bucket, buffer)
            packed = time.monotonic()
            place = f"{this.place(name)} bucket {number}/{len(part.buckets)}"
            outlet.send(buffer, place, this.deadline, watch)
            sent = time.monotonic()
            if probe is not None:
                add_expected(expected[name], probe, bucket, buffer)
            pack_s += packed - begin
            send_s += sent - packed
            digest_s += time.monotonic() - sent
        packer.finish()
    return Sent(expected, pack_s, send_s, digest_s)
