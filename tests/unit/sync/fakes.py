"""A trainer without a model and an engine without vLLM: weights in a dictionary, the rest is real."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.machine.precision import dtype_name
from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.buckets import Unpacker, damaged, pack_into_buckets
from openrlhf_mtp.sync.errors import CorruptTransfer
from openrlhf_mtp.sync.manifest import Manifest, TensorSpec, WeightSource
from openrlhf_mtp.sync.opening import open_sync
from openrlhf_mtp.sync.outlets import Inlet, connect_inlet
from openrlhf_mtp.sync.readback import Probe
from openrlhf_mtp.sync.sender import Sender
from openrlhf_mtp.sync.transport import Place
from openrlhf_mtp.sync.waiting import Deadline


def source(tensors: dict[str, Tensor]) -> WeightSource:
    """A source over a dictionary, read again each round."""
    specs = (TensorSpec(name, tuple(t.shape), dtype_name(t.dtype)) for name, t in tensors.items())
    return WeightSource(Manifest(tuple(specs)), lambda: iter(tensors.items()))


def random_tensors(prefix: str, count: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"{prefix}.{i}.weight": torch.randn(8, 4, generator=generator) for i in range(count)}


class FakeEngine:
    """One engine with one worker. `before_round` may raise or wait; `keeps_old` names weights it fails to renew."""

    def __init__(self, policy: WeightSource, head: WeightSource | None) -> None:
        self.manifests = {"policy": policy.manifest} | ({} if head is None else {"head": head.manifest})
        self.weights: dict[str, Tensor] = {}
        self.received: list[int] = []  # bytes of each bucket
        self.calls: list[str] = []
        self.keeps_old: set[str] = set()
        self.tried: dict[str, list[str]] = {}  # what its trials found wrong
        self.before_round: Callable[[], None] = lambda: None
        self.loads_for_s = 0.0
        self.joins = True
        self.places = [Place.of(torch.device("cpu"))]  # of its workers, as it says; it joins with one
        self.init_info: dict[str, Any] = {}
        self._pool = ThreadPoolExecutor(1)
        self._inlet: Inlet | None = None

    def sync_manifest(self) -> Future[dict[str, Any]]:
        self.calls.append("sync_manifest")
        head = self.manifests.get("head")
        answer = {
            "policy": self.manifests["policy"].to_wire(),
            "head": None if head is None else head.to_wire(),
            "places": [place.to_wire() for place in self.places],
        }

        def loaded() -> dict[str, Any]:
            time.sleep(self.loads_for_s)
            return answer

        return self._pool.submit(loaded)

    def sync_init(self, init_info: dict[str, Any]) -> Future[Any]:
        self.calls.append("sync_init")
        self.init_info = init_info
        return self._pool.submit(self._join, init_info)

    def sync_round(self, request: dict[str, Any]) -> Future[list[dict[str, Any]]]:
        self.calls.append("sync_round")
        return self._pool.submit(self._round, request)

    def _join(self, info: dict[str, Any]) -> None:
        if self.joins:
            self._inlet = connect_inlet(info, 0, torch.device("cpu"))

    def _round(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        self.before_round()
        assert self._inlet is not None
        digests = {}
        probe = None if request["probe"] is None else Probe(**request["probe"])
        for part in self.manifests:
            update = request[part]
            buckets = pack_into_buckets(Manifest.from_wire(update["tensors"]).tensors, update["bucket_bytes"])
            unpacker = Unpacker()
            for number, bucket in enumerate(buckets, start=1):
                place = f"{update['place']} bucket {number}/{len(buckets)}"
                buffer = self._inlet.receive(bucket.size, place, Deadline(update["timeout_s"]))
                self.received.append(bucket.size)
                if bad := damaged(bucket, buffer):
                    raise CorruptTransfer(f"damaged in transit: {', '.join(bad)}")
                for name, tensor in unpacker.tensors(bucket, buffer):
                    if name not in self.keeps_old:
                        self.weights[name] = tensor
            if probe is not None:
                digests[part] = [
                    [name, name, 1, probe.expected(self.weights[name])]
                    for name in self.manifests[part].by_name()
                ]
        self._inlet.release()
        return [{"digests": digests, "tried": self.tried, "verify_s": 0.0}]


@dataclass
class Job:
    """Trainer tensors, engines that hold the same, and, once it is open, what sends the one to the others."""

    policy: dict[str, Tensor]
    head: dict[str, Tensor]
    engines: list[FakeEngine]
    settings: SyncSettings
    sync: Sender = field(init=False)

    @property
    def is_open(self) -> bool:
        return hasattr(self, "sync")

    def open(self) -> None:
        sync = open_sync(self.engines, self.settings, source(self.policy), source(self.head))
        assert isinstance(sync, Sender)
        self.sync = sync


Start = Callable[..., Job]
"""Makes a job; keywords are the number of engines, of policy tensors, whether it is open, and `mtp.sync`."""
