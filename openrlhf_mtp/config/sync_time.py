"""A sync round from its bytes: the size of its buckets, how long it may take, and how long it is expected to."""

import math
from dataclasses import dataclass

SLOWEST_BYTES_PER_S = 25e6
"""A round that is slower, beyond `mtp.sync.timeout_s`, is taken for a hang. A first round that reads everything back
ran at 54 MB/s with one thread on a busy CPU (docs/measured.md)."""

GB = 1e9
MIB = 2**20

BUCKETS_TO_OVERLAP = 8
"""So many buckets or more in a round, so that engines load one while the next is packed."""
LEAST_BUCKET = 8 * MIB
"""None is smaller for that, because each costs a few messages."""


def bucket_bytes(nbytes: int, bucket_mib: int) -> int:
    """The size of the buckets of a round.

    Args:
        nbytes: that a worker receives.
        bucket_mib: `mtp.sync.bucket_mib`, the most.
    """
    return min(bucket_mib * MIB, max(nbytes // BUCKETS_TO_OVERLAP, LEAST_BUCKET))


def round_limit_s(timeout_s: float, nbytes: int) -> float:
    """Seconds after which a round counts as failed.

    Args:
        timeout_s: `mtp.sync.timeout_s`, whatever the size.
        nbytes: that one worker receives.
    """
    return timeout_s + nbytes / SLOWEST_BYTES_PER_S


@dataclass(frozen=True)
class Cost:
    """Seconds of a round for each GB that a worker receives.

    Attributes:
        each: packing, checks, sending and loading.
        doubling: more for each doubling of the receivers: a broadcast is a binary tree.
        in_full: more in a verified first round, which reads every column back.
    """

    each: float
    doubling: float
    in_full: float

    def seconds(self, nbytes: int, workers: int, *, first: bool = False) -> float:
        """The seconds of a round to so many workers; `first` is the one that is verified in full."""
        doublings = math.log2(workers + 1)
        return nbytes / GB * (self.each + self.doubling * doublings + (self.in_full if first else 0.0))


# Assumed, not measured yet: a GPU reads and writes what it packs, checks and loads some ten times at 1 TB/s and more,
# NCCL moves 20 GB/s, pageable copies 5 GB/s, gloo 2 GB/s.
ON_GPUS = {
    "ipc": Cost(each=0.03, doubling=0.0, in_full=0.1),
    "nccl": Cost(each=0.08, doubling=0.0, in_full=0.1),
    "gloo": Cost(each=0.4, doubling=0.5, in_full=0.1),
}
# Measured with one thread a process (docs/measured.md), a doubling assumed to cost what the first one does.
ON_CPUS = {
    "ipc": Cost(each=2.4, doubling=0.0, in_full=16.0),
    "gloo": Cost(each=2.4, doubling=0.9, in_full=16.0),
}


def costs(*, has_cuda: bool, colocated: bool) -> dict[str, Cost]:
    """The transports that a job can have, that of `mtp.sync.backend: auto` first.

    Args:
        has_cuda: trainer and engines have GPUs.
        colocated: they share them.
    """
    if not has_cuda:
        return ON_CPUS
    return {name: cost for name, cost in ON_GPUS.items() if name != ("nccl" if colocated else "ipc")}
