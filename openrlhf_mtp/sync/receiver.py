"""The rollout side of a round. Runs in every vLLM worker, which receives, loads, and reads back what it computes with.

vLLM's own weight-transfer interface carries it: `rollout.plugin` registers `MTPWeightTransferEngine` under the name
"mtp", and the worker drives it through a start (policy) or draft start (head), one update that receives all buckets,
and a finish.
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

from openrlhf_mtp.sync.buckets import Unpacker, damaged, pack_into_buckets
from openrlhf_mtp.sync.errors import CorruptTransfer, SyncError
from openrlhf_mtp.sync.group import SyncGroup
from openrlhf_mtp.sync.loaded_layers import LoadedLayer, loaded_layers, manifest_of, tied_output_heads
from openrlhf_mtp.sync.manifest import Manifest
from openrlhf_mtp.sync.readback import Probe, Rows
from openrlhf_mtp.sync.store import Rendezvous
from openrlhf_mtp.sync.transport import device_id
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Deadline


class ReceivingWorker:
    """The sync's methods of a vLLM worker, reached through `collective_rpc`; `rollout.worker` mixes them in."""

    def mtp_manifest(self) -> dict[str, Any]:
        """The tensors that this worker's engine holds.

        Returns:
            `policy` and `head` (None without a draft) as `Manifest.to_wire` rows, `workers` (of how many the engine
            consists) and `device` (`sync.transport.device_id`).
        """
        layers = _layers(self)
        return {
            "policy": manifest_of(layers["policy"]).to_wire(),
            "head": manifest_of(layers["head"]).to_wire() if "head" in layers else None,
            "workers": _workers(self),
            "device": device_id(self.device),  # type: ignore[attr-defined]
        }

    def mtp_sync_round(self, request: dict[str, Any]) -> dict[str, Any]:
        """This worker's whole round: receive and load policy and head, then read them back.

        It is one call, so that no step of generation can run in between: a model that is being reloaded has no weights.

        Args:
            request: `MTPUpdateInfo` fields under "policy" and, if a head is sent, "head"; under "probe" those of
                `sync.readback.Probe`, or None to read nothing back.

        Returns:
            `digests` (`sync.readback.WorkerDigests`, empty without a probe) and `verify_s`, the seconds they took.
        """
        worker: Any = self
        for part, start in (
            ("policy", worker.start_weight_update),
            ("head", worker.start_draft_weight_update),
        ):
            if part in request:
                start()
                worker.update_weights(request[part])
                worker.finish_weight_update()
        begin = time.monotonic()
        digests = {} if request["probe"] is None else _read_back(worker, Probe(**request["probe"]))
        return {"digests": digests, "verify_s": time.monotonic() - begin}


def _read_back(worker: Any, probe: Probe) -> dict[str, Rows]:
    return {part: probe.read(layers) for part, layers in _layers(worker).items()}


def _layers(worker: Any) -> dict[str, list[LoadedLayer]]:
    """The loaded layers of "policy" and, when the engine drafts, "head"."""
    target, draft, workers = worker.model_runner.get_model(), worker.get_draft_model(), _workers(worker)
    layers = {"policy": loaded_layers(target, workers)}
    if draft is not None:
        layers["head"] = loaded_layers(draft, workers, shared_with=target)
    return layers


def _workers(worker: Any) -> int:
    size: int = worker.parallel_config.tensor_parallel_size
    return size


@dataclass
class MTPInitInfo(WeightTransferInitInfo):
    """The data with which this engine's workers join the group.

    Attributes:
        rendezvous: fields of `sync.store.Rendezvous`.
        rank_offset: a worker's rank is this plus its tensor-parallel rank.
        engine: the engine's number, for errors.
    """

    rendezvous: dict[str, Any]
    rank_offset: int
    engine: int


@dataclass
class MTPUpdateInfo(WeightTransferUpdateInfo):
    """One model's part of a round.

    Attributes:
        tensors: its manifest, as `Manifest.to_wire` rows.
        bucket_bytes: the bucket size that both sides use.
        place: names the part in errors.
    """

    tensors: list[list[Any]]
    bucket_bytes: int
    place: str


def _give_memory_back() -> None:
    """To the GPU, which others share: the buckets and the layers that were put together from them lie in torch's cache
    otherwise, beyond what `gpu_memory_utilization` counts."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _quiet_reload() -> Iterator[None]:
    """vLLM warns each time about modules that no checkpoint loads (rotary tables, tied or shared output heads).

    The read-back finds what was really not loaded.
    """
    logger = logging.getLogger("vllm.model_executor.model_loader.reload.layerwise")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class MTPWeightTransferEngine(WeightTransferEngine[MTPInitInfo, MTPUpdateInfo]):
    """Receives packed buckets from the trainer, refuses damaged ones, and reloads the model layer by layer."""

    init_info_cls, update_info_cls = MTPInitInfo, MTPUpdateInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        self._group: SyncGroup | None = None

    def init_transfer_engine(self, init_info: MTPInitInfo) -> None:
        """Join the trainer's group. Blocks until all ranks are there.

        Raises:
            SyncTimeout: not all came.
        """
        worker = self.parallel_config.rank
        self._group = SyncGroup(
            Rendezvous(**init_info.rendezvous),
            init_info.rank_offset + worker,
            f"engine {init_info.engine} worker {worker}",
            device=self.device,
        )

    def start_weight_update(self) -> None:
        """Make the model ready to be loaded again."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: MTPUpdateInfo) -> None:
        """Receive every bucket of one model and hand its tensors to the model's own loader.

        Raises:
            SyncTimeout, SyncError: from the group.
            CorruptTransfer: names the damaged tensors.
        """
        group = self._group
        if group is None:
            raise SyncError("the weight sync is not open: call sync_init before sync_round")
        deadline = Deadline(group.timeout_s, ROUND_LIMIT)
        buckets = pack_into_buckets(Manifest.from_wire(update_info.tensors).tensors, update_info.bucket_bytes)
        unpacker = Unpacker()
        for number, bucket in enumerate(buckets, start=1):
            place = f"{update_info.place} bucket {number}/{len(buckets)}"
            # A new buffer each time: layerwise reload keeps views until a layer is complete.
            buffer = torch.empty(bucket.size, dtype=torch.uint8, device=group.device)
            group.broadcast(buffer, place, deadline)
            bad = damaged(bucket, buffer)
            if bad:
                group.close()
                raise CorruptTransfer(f"{group.role}: {place}: damaged in transit: {', '.join(bad)}")
            model: Any = self.model  # vLLM's models load weights, which nn.Module does not say
            complete = list(unpacker.tensors(bucket, buffer.to(self.device)))
            with disable_mtp_completeness_check():
                model.load_weights(iter(complete))

    def finish_weight_update(self) -> None:
        """Process what is left, and repack tied output heads.

        Their weight changes without being loaded, and vLLM-CPU multiplies by a packed copy that layerwise reload does
        not renew.
        """
        with _quiet_reload():
            finalize_layerwise_reload(self.model, self.model_config)
        for output_head, _ in tied_output_heads(self.model):
            output_head.quant_method.process_weights_after_loading(output_head)
        _give_memory_back()

    def shutdown(self) -> None:
        """Leave the group."""
        if self._group is not None:
            self._group.close()
