"""Before the first round, on the trainer: both sides hold the same tensors, and all ranks are connected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any

import torch

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.buckets import pack_into_buckets
from openrlhf_mtp.sync.errors import ManifestMismatch
from openrlhf_mtp.sync.group import SyncGroup
from openrlhf_mtp.sync.manifest import Manifest, WeightSource, diff
from openrlhf_mtp.sync.sender import MIB, Part, RolloutEngine, Sender
from openrlhf_mtp.sync.store import TRAINER_RANK, Rendezvous, new_token, serve_store
from openrlhf_mtp.sync.transport import choose_backend, device_id
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Calls, Deadline

Held = Mapping[str, Any]
"""The tensors that an engine reports: `ReceivingWorker.mtp_manifest`."""


class GatheringRank:
    """A trainer rank that sends nothing: it runs through the sources, so that collective gathers match rank 0's."""

    def __init__(self, sources: Sequence[WeightSource]) -> None:
        self._sources = sources

    def round(self) -> None:
        """Take part in the gathers of one round."""
        for source in self._sources:
            for _ in source.tensors():
                pass


def open_sync(
    engines: Sequence[RolloutEngine],
    settings: SyncSettings,
    policy: WeightSource,
    head: WeightSource | None,
    *,
    host: str = "127.0.0.1",
    device: torch.device | None = None,
    rank: int = TRAINER_RANK,
) -> Sender | GatheringRank:
    """Compare the tensors' names, shapes and types with those of every engine, then connect all ranks.

    Engines may still be loading their model; the first answer has a time limit of its own.

    Args:
        engines: one handle per rollout engine.
        settings: `mtp.sync` of the job.
        policy, head: the trainer's tensors; `head` is None when the rollouts do not speculate.
        host: an address of this machine that the engines can reach; the sync listens there alone.
        device: where this trainer's weights live.
        rank: this trainer process; rank 0 talks to the engines.

    Returns:
        What to call `round()` on after the updates of every RL step, in every trainer process.

    Raises:
        ManifestMismatch: lists every difference.
        SyncTimeout: names the ranks that did not come.
    """
    sources = {"policy": policy} | ({} if head is None else {"head": head})
    if rank != TRAINER_RANK:
        return GatheringRank(list(sources.values()))
    held = _ask_what_they_hold(engines, settings)
    _require_same_tensors(sources, held)
    group = _join(engines, held, settings, host, device or torch.device("cpu"))
    parts = {
        name: Part(source, pack_into_buckets(source.manifest.tensors, settings.bucket_mib * MIB))
        for name, source in sources.items()
    }
    return Sender(engines, parts, group, settings)


def _ask_what_they_hold(engines: Sequence[RolloutEngine], settings: SyncSettings) -> list[Held]:
    calls = Calls("sync_manifest", [engine.sync_manifest() for engine in engines])
    return calls.results(Deadline(settings.start_timeout_s, "mtp.sync.start_timeout_s"))


def _require_same_tensors(sources: Mapping[str, WeightSource], held: Sequence[Held]) -> None:
    problems = []
    for number, engine in enumerate(held):
        if "head" not in sources and engine["head"] is not None:
            problems.append(f"engine {number}: drafts with a head that the trainer does not send")
        for part, source in sources.items():
            if engine[part] is None:
                problems.append(
                    f"engine {number}: has no draft model for the head; set mtp.rollout.speculate"
                )
                continue
            lines = diff(source.manifest, Manifest.from_wire(engine[part]))
            problems += [f"engine {number} {part}: {line}" for line in lines]
    if problems:
        raise ManifestMismatch("trainer and engines hold different weights:\n  " + "\n  ".join(problems))


def _join(
    engines: Sequence[RolloutEngine],
    held: Sequence[Held],
    settings: SyncSettings,
    host: str,
    device: torch.device,
) -> SyncGroup:
    """Serve the store, call every engine there, and connect.

    Rank 0 is the trainer; the workers follow, engine by engine.
    """
    deadline = Deadline(settings.timeout_s, ROUND_LIMIT)
    backend = choose_backend(settings.backend, device_id(device), [engine["device"] for engine in held])
    *first_ranks, world_size = accumulate((engine["workers"] for engine in held), initial=1)
    store = serve_store(host, settings.timeout_s)
    at = Rendezvous(host, store.port, new_token(), world_size, backend, settings.timeout_s)
    calls = Calls(
        "sync_init",
        [
            engine.sync_init({"rendezvous": asdict(at), "rank_offset": first, "engine": number})
            for number, (engine, first) in enumerate(zip(engines, first_ranks, strict=True))
        ],
    )
    group = SyncGroup(at, TRAINER_RANK, "trainer", device=device, store=store, watch=calls.check)
    calls.results(deadline)
    return group
