"""The report of one round, for the metrics of a step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SyncReport:
    """The report of one round; times in seconds on the trainer's rank 0.

    Attributes:
        seconds: the whole round.
        bytes, buckets: what was sent.
        rpc_calls: one per engine, whatever the number of parameters.
        pack_s: gathering, casting and checksums.
        broadcast_s: sending.
        engine_s: waiting for the engines after the last bucket (loading and reading back).
        verify_s: digests, the trainer's plus the slowest worker's (which is part of engine_s).
        verified: whether this round read back.
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
