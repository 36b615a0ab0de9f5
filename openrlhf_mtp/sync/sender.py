"""The trainer's side: one round sends policy and head to every engine and checks that they compute with them.

    sync = WeightSync(engines, settings, policy, head)
    sync.open()             # both sides hold the same tensors, all ranks connected
    report = sync.round()   # after every optimizer step

A round is one RPC per engine plus one broadcast per bucket, however many parameters there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.backend import choose_backend, device_id
from openrlhf_mtp.sync.buckets import plan
from openrlhf_mtp.sync.calls import Calls, Engine
from openrlhf_mtp.sync.errors import ManifestMismatch
from openrlhf_mtp.sync.manifest import Manifest, diff
from openrlhf_mtp.sync.round import Probe, Round, SyncReport
from openrlhf_mtp.sync.source import WeightSource
from openrlhf_mtp.sync.store import new_token, serve_store
from openrlhf_mtp.sync.transport import TRAINER_RANK, Broadcaster
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Deadline

# Columns read back of each matrix after the first round, which reads all. A stale copy differs in any column; over a
# thousand rows, 32 columns see even an update that changed one element in a thousand.
SAMPLED_COLUMNS = 32
MIB = 2**20


class WeightSync:
    """Policy and head from trainer rank 0 to all engines.

    Args:
        engines: one handle per rollout engine (`sync.calls.Engine`).
        settings: `mtp.sync` of the job.
        policy, head: the trainer's tensors; `head` is None when the rollouts do not speculate.
        host: an address of this machine that the engines can reach; the sync listens there alone.
        device: where this trainer's weights live.
        rank: this trainer process; only rank 0 sends, the others run through the sources so that collective
            gathers match.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        settings: SyncSettings,
        policy: WeightSource,
        head: WeightSource | None,
        *,
        host: str = "127.0.0.1",
        device: torch.device | None = None,
        rank: int = 0,
    ) -> None:
        self._engines, self._settings = list(engines), settings
        self._sources = {"policy": policy} | ({} if head is None else {"head": head})
        self._host, self._device, self._rank = host, device or torch.device("cpu"), rank
        self._bucket_bytes = settings.bucket_mib * MIB
        self._plans = {
            part: plan(source.manifest.tensors, self._bucket_bytes) for part, source in self._sources.items()
        }
        self._broadcaster: Broadcaster | None = None
        self._buffer: Tensor | None = None
        self._rounds = 0

    def open(self) -> None:
        """Compare manifests with every engine, then connect all ranks.

        Engines may still be loading their model; the first answer has a time limit of its own.

        Raises ManifestMismatch listing every difference, SyncTimeout naming the ranks that did not come.
        """
        if self._rank != TRAINER_RANK:
            return
        calls = Calls(self._engines, "sync_manifest", lambda _, engine: engine.sync_manifest())
        held = calls.results(Deadline(self._settings.start_timeout_s, "mtp.sync.start_timeout_s"))
        self._require_same_tensors(held)
        deadline = Deadline(self._settings.timeout_s, ROUND_LIMIT)
        backend = choose_backend(
            self._settings.backend, device_id(self._device), [engine["device"] for engine in held]
        )
        store = serve_store(self._host, self._settings.timeout_s)
        offsets = [1 + sum(engine["workers"] for engine in held[:number]) for number in range(len(held))]
        common = {
            "host": self._host,
            "port": store.port,
            "token": new_token(),
            "world_size": 1 + sum(engine["workers"] for engine in held),
            "backend": backend,
            "timeout_s": self._settings.timeout_s,
        }
        calls = Calls(
            self._engines,
            "sync_init",
            lambda number, engine: engine.sync_init(
                {**common, "rank_offset": offsets[number], "engine": number}
            ),
        )
        self._broadcaster = Broadcaster(
            **common, rank=TRAINER_RANK, role="trainer", device=self._device, store=store, watch=calls.check
        )
        calls.results(deadline)
        size = max(bucket.size for buckets in self._plans.values() for bucket in buckets)
        self._buffer = torch.empty(size, dtype=torch.uint8, device=self._broadcaster.device)

    def round(self) -> SyncReport | None:
        """Send everything once; None on trainer ranks other than 0.

        Raises SyncTimeout or SyncError (an engine failed, hangs or is gone), StaleWeights (an engine computes with
        other weights), ValueError (a source changed, or holds NaN). All are fatal: engines may be half loaded.
        """
        if self._rank != TRAINER_RANK:
            for source in self._sources.values():
                for _ in source.tensors():
                    pass
            return None
        assert self._broadcaster is not None, "open() comes before round()"
        assert self._buffer is not None
        self._rounds += 1
        return Round(
            self._rounds,
            self._engines,
            self._sources,
            self._plans,
            self._bucket_bytes,
            self._broadcaster,
            self._buffer,
            self._probe(),
        ).run()

    def close(self) -> None:
        """Leave the group; engines keep their last weights."""
        if self._broadcaster is not None:
            self._broadcaster.close()
            self._broadcaster = None

    def _probe(self) -> Probe | None:
        every = self._settings.verify_every
        if every == 0 or (self._rounds - 1) % every != 0:
            return None
        return Probe(columns=None if self._rounds == 1 else SAMPLED_COLUMNS, seed=self._rounds)

    def _require_same_tensors(self, held: list[dict[str, Any]]) -> None:
        problems = []
        for number, engine in enumerate(held):
            if "head" not in self._sources and engine["head"] is not None:
                problems.append(f"engine {number}: drafts with a head that the trainer does not send")
            for part, source in self._sources.items():
                if engine[part] is None:
                    problems.append(
                        f"engine {number}: has no draft model for the head; set mtp.rollout.speculate"
                    )
                    continue
                lines = diff(source.manifest, Manifest.from_wire(engine[part]))
                problems += [f"engine {number} {part}: {line}" for line in lines]
        if problems:
            raise ManifestMismatch("trainer and engines hold different weights:\n  " + "\n  ".join(problems))
