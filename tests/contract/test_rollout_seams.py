"""What the rollout side relies on in OpenRLHF 0.11.2."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

import openrlhf.trainer.ray.vllm_engine as upstream

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.rollout import actor, engine, environment
from openrlhf_mtp.sync.errors import SyncError
from openrlhf_mtp.sync.transport import uses_own_sync
from openrlhf_mtp.upstream.openrlhf.bindings import plain_class
from openrlhf_mtp.upstream.processes import prepare_process


def test_our_actor_extends_openrlhfs_and_overrides_what_is_there() -> None:
    base = plain_class(upstream.RolloutRayActor)
    assert issubclass(actor.MTPRolloutActor, base)
    for name in ("__init__", "generate", "generate_responses"):
        assert name in vars(base), name
        assert name in vars(actor.MTPRolloutActor), name


class Engines:
    """Stands for the module's actor class and Ray's placement group; keeps what OpenRLHF passes."""

    def __init__(self) -> None:
        self.options_given: list[dict[str, Any]] = []
        self.arguments_given: list[dict[str, Any]] = []

    def options(self, **options: Any) -> Engines:
        self.options_given.append(options)
        return self

    def remote(self, **arguments: Any) -> str:
        self.arguments_given.append(arguments)
        return f"engine {len(self.arguments_given)}"


def created(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], *, workers: int = 1, **options: Any
) -> tuple[Engines, list[Any]]:
    """What OpenRLHF's `create_vllm_engines` makes of two engines: they themselves and its placement groups."""
    engines, groups = Engines(), []

    class Group:
        def ready(self) -> None: ...

    def placement_group(bundles: list[dict[str, int]], **_: Any) -> Group:
        groups.append(bundles)
        return Group()

    import ray

    monkeypatch.setattr(ray, "remote", lambda cls: engines)
    monkeypatch.setattr(ray, "get", lambda ready: ready)
    monkeypatch.setattr(upstream, "PlacementGroupSchedulingStrategy", lambda **options: options)
    for name in ("RolloutRayActor", "placement_group"):
        monkeypatch.setattr(upstream, name, vars(upstream)[name])  # undone after the test
    create = engine.engine_factory(
        MTPSettings.model_validate(settings), placement_group=placement_group, **options
    )
    assert create(2, workers, "a/policy", 42, False, False, True, 128) == ["engine 1", "engine 2"]
    return engines, groups


def test_engines_get_openrlhfs_arguments_and_ours_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    engines, groups = created(monkeypatch, {"rollout": {"speculate": False, "dtype": "float32"}}, threads=3)
    assert groups == [[{"GPU": 1, "CPU": 1}] * 2], "OpenRLHF no longer asks our placement group"
    assert [arguments["seed"] for arguments in engines.arguments_given] == [42, 43]
    first = engines.arguments_given[0]
    assert first["model"] == "a/policy"
    assert first["dtype"] == "float32"
    assert first["threads"] == 3, "which our actor takes out again"
    assert first["worker_extension_cls"] == "openrlhf_mtp.rollout.worker.MTPWorkerExtension"
    assert first["logprobs_mode"] == "processed_logprobs"


def test_workers_of_a_tensor_parallel_engine_are_rays_and_get_the_engines_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        upstream, "get_bundle_indices", lambda group, engine, each: [2 * engine, 2 * engine + 1]
    )
    plain = {"rollout": {"speculate": False, "dtype": "float32"}}
    engines, groups = created(monkeypatch, plain, workers=2, threads=3)
    assert groups == [[{"GPU": 1, "CPU": 1}] * 4]
    for arguments, options in zip(engines.arguments_given, engines.options_given, strict=True):
        assert arguments["distributed_executor_backend"] == "ray"
        assert arguments["tensor_parallel_size"] == 2
        assert options["runtime_env"] == {"env_vars": {"OMP_NUM_THREADS": "3"}}, "which Ray's workers inherit"
    assert [arguments["bundle_indices"] for arguments in engines.arguments_given] == [[0, 1], [2, 3]]
    engines, _ = created(monkeypatch, plain, workers=1, threads=3)
    assert "runtime_env" not in engines.options_given[0], "its process takes the number itself"


def test_without_a_head_engines_keep_openrlhfs_own_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    engines, _ = created(monkeypatch, {"rollout": {"speculate": False, "dtype": "float32"}}, own_sync=False)
    first = engines.arguments_given[0]
    assert first["worker_extension_cls"] == "openrlhf.trainer.ray.vllm_worker_wrap.WorkerWrap"
    assert "weight_transfer_config" not in first
    # what is measured in every run stays, so that a baseline can be held against a run with a head
    assert first["logprobs_mode"] == "processed_logprobs"
    assert first["disable_log_stats"] is False


@pytest.mark.parametrize(
    ("cuda", "asked", "own"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_weights_travel_by_openrlhfs_means_where_those_work(
    cuda: bool, asked: bool, own: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both ends decide alike: the engines' arguments and calls, and the trainer's."""
    from types import SimpleNamespace

    import torch

    prepare_process()
    from openrlhf.trainer.ray.ppo_actor import ActorPPOTrainer

    from openrlhf_mtp.training import ray_actor
    from openrlhf_mtp.training.policy_trainer import PolicyTrainer

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    calls: list[str] = []

    async def start(self: Any, **arguments: Any) -> None:
        calls.append(arguments.get("worker_extension_cls", "OpenRLHF's"))
        self.llm = Engine()

    base = plain_class(upstream.RolloutRayActor)
    monkeypatch.setattr(base, "__init__", start)
    for name in ("_init_vllm_sync_group", "broadcast_to_vllm"):
        monkeypatch.setattr(ActorPPOTrainer, name, lambda self, *_, name=name: calls.append(name))
    rollout = object.__new__(actor.MTPRolloutActor)
    asyncio.run(rollout.__init__(**(environment.OWN_SYNC if asked else {})))
    trainer = object.__new__(PolicyTrainer)
    trainer.own_sync, trainer.head_trainer = uses_own_sync(asked), None
    trainer._init_vllm_sync_group("nccl")
    policy = object.__new__(ray_actor.PolicyActor)
    policy.trainer, policy.vllm_engines = trainer, ["an engine"]
    policy.strategy = SimpleNamespace(
        args=SimpleNamespace(run=SimpleNamespace(run_folder=str(tmp_path)))  # where it says what it does
    )
    sender = SimpleNamespace(round=lambda: calls.append("our round"))
    monkeypatch.setattr(ray_actor.PolicyActor, "_connect", lambda self: sender)
    monkeypatch.setattr(ray_actor, "torch_dist_barrier_and_cuda_sync", lambda: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    policy._sync = policy._open_sync()
    policy.broadcast_to_vllm()
    if own:
        assert calls == [environment.OWN_SYNC["worker_extension_cls"], "our round"]
        assert rollout.llm.calls == ["mtp_probe"]
    else:
        assert calls == ["OpenRLHF's", "_init_vllm_sync_group", "broadcast_to_vllm"]
        assert rollout.llm.calls == []


def test_the_drivers_call_still_fits_our_replacement() -> None:
    names = list(inspect.signature(upstream.create_vllm_engines).parameters)
    assert names[:3] == ["num_engines", "tensor_parallel_size", "pretrain"]


def test_openrlhfs_own_sync_takes_weights_of_the_engines_type_alone() -> None:
    """Why `check` refuses 4-bit weights without a head, too."""
    from openrlhf.trainer.ray.vllm_worker_wrap import WorkerWrap

    for method in (WorkerWrap.update_weight, WorkerWrap.update_weight_cuda_ipc):
        assert "assert dtype == self.model_config.dtype" in inspect.getsource(method)


def test_every_rollout_goes_through_the_methods_we_measure_and_check() -> None:
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    assert "generate_responses.remote(" in inspect.getsource(SamplesGenerator._dispatch_prompts_to_vllm)
    execute = inspect.getsource(SingleTurnAgentExecutor.execute)
    assert "llm_engine.generate(" in execute
    assert "_fetch_rewards_via_func(" in execute
    assert "_fetch_rewards_via_http(" in execute


def test_openrlhf_still_forbids_an_end_at_once_and_our_parameters_do_not() -> None:
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
    from vllm import SamplingParams

    source = inspect.getsource(SamplesGenerator._dispatch_prompts_to_vllm)
    assert 'min_tokens=generate_kwargs.get("min_new_tokens", 1)' in source
    given = SamplingParams(temperature=0.7, max_tokens=9, min_tokens=1)
    used = actor.on_whole_policy(given)
    assert (used.min_tokens, used.logprobs) == (0, 1)
    assert (used.temperature, used.max_tokens) == (0.7, 9)
    assert (given.min_tokens, given.logprobs) == (1, None), "the caller's own parameters were changed"


class Engine:
    """An `AsyncLLM` as far as a sync round uses it; `keeps_cache` refuses every reset, as vLLM may."""

    def __init__(self, *, paused: bool = False, keeps_cache: bool = False) -> None:
        self.paused, self.keeps_cache = paused, keeps_cache
        self.calls: list[str] = []

    async def is_paused(self) -> bool:
        return self.paused

    async def pause_generation(self, *, mode: str) -> None:
        self.calls.append(f"pause {mode}")

    async def resume_generation(self) -> None:
        self.calls.append("resume")

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        self.calls.append(method)
        return [args]

    async def reset_prefix_cache(self, *, reset_running_requests: bool) -> bool:
        self.calls.append("reset, running requests too" if reset_running_requests else "reset")
        return not self.keeps_cache


def a_round(engine: Engine) -> list[str]:
    """The calls of one sync round."""
    rollout = object.__new__(actor.MTPRolloutActor)
    rollout.llm = engine
    asyncio.run(rollout.sync_round({}))
    return engine.calls


def test_nothing_is_computed_between_new_weights_and_an_empty_prefix_cache() -> None:
    during = ["mtp_sync_round", "reset, running requests too"]
    assert a_round(Engine()) == ["pause keep", *during, "resume"]
    # paused by OpenRLHF (partial rollout), or asleep: it resumes or wakes the engine itself
    assert a_round(Engine(paused=True)) == during


@pytest.mark.parametrize("method", ["sync_round", "reset_prefix_cache"])
def test_an_engine_that_keeps_its_prefix_cache_ends_the_run_and_samples_no_more(method: str) -> None:
    rollout = object.__new__(actor.MTPRolloutActor)
    rollout.llm = Engine(keeps_cache=True)
    with pytest.raises(SyncError, match=r"kept its prefix cache.*vllm.enable_prefix_caching"):
        asyncio.run(getattr(rollout, method)(*[{}] if method == "sync_round" else []))
    assert "resume" not in rollout.llm.calls


def test_vllms_calls_around_a_round_still_answer_as_we_read_them() -> None:
    from vllm.v1.engine.async_llm import AsyncLLM

    assert inspect.signature(AsyncLLM.reset_prefix_cache).return_annotation in (bool, "bool")
    for method in ("sleep", "wake_up", "pause_generation", "resume_generation", "reset_mm_cache"):
        answer = inspect.signature(getattr(AsyncLLM, method)).return_annotation
        assert answer in (None, "None"), f"{method} answers {answer}: look at it where it is called"
