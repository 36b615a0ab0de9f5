"""The two sides of `bench sync`: a random policy here, engines in Ray actors, and both syncs between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openrlhf_mtp.bench.random_policy import random_policy
from openrlhf_mtp.config.settings.mtp import MTPSettings, SyncSettings

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Workload:
    """The policy that is sent, and to how many engines.

    Attributes:
        layers, hidden, vocab: size of the policy (Qwen2, four times as wide inside, 64 to a head): 12 tensors a layer.
        engines: that receive it.
        repeats: turns.
    """

    layers: int = 24
    hidden: int = 512
    vocab: int = 16_384
    engines: int = 1
    repeats: int = 5

    @property
    def tensors(self) -> int:
        """Tensors of the policy: 12 a layer, the embedding (which is the output head, too) and the last norm."""
        return 12 * self.layers + 2


class Counter:
    """Counts remote calls."""

    def __init__(self) -> None:
        self.calls = 0

    def drain(self) -> int:
        """Calls since the last time."""
        calls, self.calls = self.calls, 0
        return calls


class CountedHandle:
    """A Ray actor's handle whose calls are counted."""

    def __init__(self, handle: Any, counter: Counter) -> None:
        self._handle, self._counter = handle, counter

    def __getattr__(self, name: str) -> Any:
        def remote(*args: Any, **kwargs: Any) -> Any:
            self._counter.calls += 1
            return getattr(self._handle, name).remote(*args, **kwargs)

        return SimpleNamespace(remote=remote)


def write_policy(folder: Path, workload: Workload) -> None:
    """A random policy in bfloat16, without a tokenizer."""
    random_policy(workload.layers, workload.hidden, workload.vocab, 128).save_pretrained(folder)


def start_engines(folder: Path, engines: int, counter: Counter) -> list[CountedHandle]:
    """Rollout actors without drafts, as a job creates them; on GPUs they share the trainer's."""
    import ray
    from ray.util.placement_group import placement_group

    from openrlhf_mtp.bench.sync_worker import SyncBenchActor
    from openrlhf_mtp.rollout.engine import engine_factory

    mtp = MTPSettings.model_validate(
        {"rollout": {"speculate": False, "dtype": "bfloat16", "kv_cache_gib": 0.25}}
    )
    group = placement_group([{"GPU": 1, "CPU": 1}] * engines)
    ray.get(group.ready())
    create = engine_factory(mtp, threads=1, actor=SyncBenchActor)
    seed, full_determinism, prefix_caching, eager, longest = 0, False, False, True, 128
    handles = create(
        engines,
        1,
        str(folder),
        seed,
        full_determinism,
        prefix_caching,
        eager,
        longest,
        shared_pg=group,
        gpu_memory_utilization=0.3,
    )
    return [CountedHandle(handle, counter) for handle in handles]


def openrlhfs_round(policy: Any, engines: Sequence[CountedHandle]) -> Callable[[], None]:
    """OpenRLHF's own sync, `ActorPPOTrainer.broadcast_to_vllm`: a call a parameter to each engine.

    On a CPU gloo stands in NCCL's place; on GPUs its CUDA IPC, as the engines share the trainer's.
    """
    import ray
    import torch
    import torch.distributed as dist
    from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

    if not dist.is_initialized():  # the trainer's own group, of one rank
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    arguments = SimpleNamespace(
        vllm=SimpleNamespace(enable_prefix_caching=False, sync_with_ray=False),
        ds=SimpleNamespace(zero_stage=2, tensor_parallel_size=1),
    )
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(args=arguments),
        actor=SimpleNamespace(model=SimpleNamespace(module=policy), is_vlm=False),
        vllm_engines=engines,
        use_cuda_ipc=torch.cuda.is_available(),
        _model_update_group=None,
    )
    if not trainer.use_cuda_ipc:
        from openrlhf_mtp.bench.sync_worker import GlooGroup

        world_size = len(engines) + 1
        group = GlooGroup(ADDRESS, 0, 0, world_size)
        joined = [
            engine.init_process_group.remote(
                ADDRESS, group.store.port, rank, world_size, "openrlhf", "gloo", False
            )
            for rank, engine in enumerate(engines, start=1)
        ]
        group.connect()
        ray.get(joined)
        trainer._model_update_group = group
    return partial(ActorPPOTrainer.broadcast_to_vllm, trainer)


def our_sync(policy: Any, engines: Sequence[CountedHandle], settings: SyncSettings) -> Any:
    """Our sync, opened: its `round()` is to be timed."""
    from openrlhf_mtp.sync.doors import Door
    from openrlhf_mtp.sync.opening import open_sync
    from openrlhf_mtp.sync.sender import RayEngine
    from openrlhf_mtp.training.weight_source import policy_source

    door = Door(next(policy.parameters()).device)
    handles = [RayEngine(engine) for engine in engines]
    return open_sync(handles, settings, policy_source(policy, "bfloat16", sharded=False), None, door=door)


def change(policy: Any) -> None:
    """Another value in every parameter, so that no round could go without."""
    import torch

    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.01)
