"""The rollout side of a round: vLLM's weight-transfer interface over our broadcasts. Runs in every vLLM worker.

`rollout.plugin` registers the class under the name "mtp"; vLLM then drives it: start (policy) or draft start (head),
one update that receives all buckets, finish.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from openrlhf_mtp.sync.buckets import damaged, plan, unpack
from openrlhf_mtp.sync.errors import CorruptTransfer, SyncError
from openrlhf_mtp.sync.manifest import Manifest
from openrlhf_mtp.sync.readback import effective_digests
from openrlhf_mtp.sync.transport import Backend, Broadcaster
from openrlhf_mtp.sync.vllm_layout import tied_heads
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Deadline


@contextmanager
def _quiet_reload() -> Iterator[None]:
    """vLLM warns each time about modules that no checkpoint loads (rotary tables, tied or shared output heads).
    What was really not loaded is found by `sync.readback`, which reads everything back."""
    logger = logging.getLogger("vllm.model_executor.model_loader.reload.layerwise")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@dataclass
class MTPInitInfo(WeightTransferInitInfo):
    """Where the trainer's store is, its secret, and which ranks this engine's workers take (rank_offset +
    tensor-parallel rank)."""

    host: str
    port: int
    token: str
    rank_offset: int
    world_size: int
    backend: Backend
    timeout_s: float
    engine: int


@dataclass
class MTPUpdateInfo(WeightTransferUpdateInfo):
    """One model's part of a round: its manifest rows, the bucket size both sides plan with, a name for errors, and
    what to read back afterwards (`columns` and `seed` of `sync.digest.sampled_columns`, or None for nothing)."""

    tensors: list[list[Any]]
    bucket_bytes: int
    place: str
    probe: dict[str, Any] | None


def receive_round(worker: Any, plan: dict[str, Any]) -> dict[str, Any]:
    """A worker's whole round, and its report (`sync.readback.effective_digests`).

    One call, so that no step of generation can run in between: a model that is being reloaded has no weights.

    plan: `MTPUpdateInfo` fields under "policy" and, if a head is sent, "head".
    """
    for part, start in (("policy", worker.start_weight_update), ("head", worker.start_draft_weight_update)):
        if part in plan:
            start()
            worker.update_weights(plan[part])
            worker.finish_weight_update()
    return effective_digests(worker)


class MTPWeightTransferEngine(WeightTransferEngine[MTPInitInfo, MTPUpdateInfo]):
    """Receives packed buckets from the trainer, refuses damaged ones, and reloads the model layer by layer."""

    init_info_cls, update_info_cls = MTPInitInfo, MTPUpdateInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        self.probe: dict[str, Any] | None = None
        self._broadcaster: Broadcaster | None = None
        self._seconds = {"receive": 0.0, "load": 0.0}

    def init_transfer_engine(self, init_info: MTPInitInfo) -> None:
        """Join the trainer's group. Blocks until all ranks are there; raises SyncTimeout otherwise."""
        worker = self.parallel_config.rank
        self._broadcaster = Broadcaster(
            init_info.backend,
            init_info.host,
            init_info.port,
            init_info.rank_offset + worker,
            init_info.world_size,
            init_info.timeout_s,
            f"engine {init_info.engine} worker {worker}",
            token=init_info.token,
            device=self.device,
        )

    def start_weight_update(self) -> None:
        start = time.monotonic()
        initialize_layerwise_reload(self.model)
        self._seconds["load"] += time.monotonic() - start

    def receive_weights(self, update_info: MTPUpdateInfo) -> None:
        """Receive every bucket of one model and hand its tensors to the model's own loader.

        Raises SyncTimeout or SyncError from the transport and CorruptTransfer naming the damaged tensors.
        """
        if self._broadcaster is None:
            raise SyncError("the weight sync is not open: call sync_init before sync_round")
        self.probe = update_info.probe
        deadline = Deadline(self._broadcaster.timeout_s, ROUND_LIMIT)
        buckets = plan(Manifest.from_wire(update_info.tensors).tensors, update_info.bucket_bytes)
        for number, bucket in enumerate(buckets, start=1):
            place = f"{update_info.place} bucket {number}/{len(buckets)}"
            start = time.monotonic()
            # A new buffer each time: layerwise reload keeps views until a layer is complete.
            buffer = torch.empty(bucket.size, dtype=torch.uint8, device=self._broadcaster.device)
            self._broadcaster.broadcast(buffer, place, deadline)
            bad = damaged(bucket, buffer)
            if bad:
                self._broadcaster.close()
                raise CorruptTransfer(
                    f"{self._broadcaster.role}: {place}: damaged in transit: {', '.join(bad)}"
                )
            received = time.monotonic()
            model: Any = self.model  # vLLM's models load weights, which nn.Module does not say
            with disable_mtp_completeness_check():
                model.load_weights(iter(unpack(bucket, buffer.to(self.device))))
            self._seconds["receive"] += received - start
            self._seconds["load"] += time.monotonic() - received

    def finish_weight_update(self) -> None:
        """Process what is left, and repack tied output heads: their weight changes without being loaded, and
        vLLM-CPU multiplies by a packed copy that layerwise reload does not renew."""
        start = time.monotonic()
        with _quiet_reload():
            finalize_layerwise_reload(self.model, self.model_config)
        for head, _ in tied_heads(self.model):
            head.quant_method.process_weights_after_loading(head)
        self._seconds["load"] += time.monotonic() - start

    def take_seconds(self) -> dict[str, float]:
        """Seconds spent receiving and loading since the last call."""
        taken, self._seconds = self._seconds, {"receive": 0.0, "load": 0.0}
        return taken

    def shutdown(self) -> None:
        if self._broadcaster is not None:
            self._broadcaster.close()
