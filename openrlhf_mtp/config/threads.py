"""Threads of each process of a job on a host without CUDA.

Ray gives an actor as many threads as it reserved CPUs, which is one here. In synchronous mode engines and trainer take
turns, so each of the two may have every core; processes that work at the same time share them.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openrlhf_mtp.config.job_context import JobContext

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Threads that wait sleep: those that spin take the cores from whoever's turn it is. For GNU's and Intel's OpenMP."""


@dataclass(frozen=True)
class Threads:
    """The threads of a job's processes.

    Attributes:
        engine: of each worker of an engine.
        trainer: of each rank of a trainer.
        turns: engines and trainer work one after the other.
    """

    engine: int
    trainer: int
    turns: bool

    def __str__(self) -> str:
        how = "they take turns" if self.turns else "they work at the same time"
        return f"{self.engine} for each engine, {self.trainer} for each trainer rank: {how}"


def usable_cores(limit: Path = CGROUP_LIMIT) -> int:
    """Cores that this process may use: its affinity, and the quota of its container (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = limit.read_text(encoding="utf-8").split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return allowed


def share_out(context: JobContext, environ: Mapping[str, str] = os.environ) -> Threads | None:
    """The threads of a job's processes on the machine that starts them.

    None leaves everything as it is: with CUDA, on a cluster of the user's own (whose machines are not known here),
    where the user set OMP_NUM_THREADS, and for a host whose cores are not known.
    """
    cores = context.host.cores
    if context.host.has_cuda or cores is None or "RAY_ADDRESS" in environ or "OMP_NUM_THREADS" in environ:
        return None
    trainers = context.ranks("actor") + (context.ranks("critic") if context.uses_critic else 0)
    turns = not context.on("train.async_enable")
    if not context.trains_policy and context.mtp is not None:
        trainers, turns = context.mtp.pretrain.num_ranks, True

    def each(processes: int) -> int:
        return max(1, cores // max(1, processes))

    if turns:
        return Threads(each(context.engine_gpus), each(trainers), turns)
    alike = each(context.engine_gpus + trainers)
    return Threads(alike, alike, turns)
