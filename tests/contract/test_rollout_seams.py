"""What the rollout side relies on in OpenRLHF 0.11.2."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

import openrlhf.trainer.ray.vllm_engine as upstream

from openrlhf_mtp.config.mtp import MTPSettings
from openrlhf_mtp.rollout import actor, engine
from openrlhf_mtp.upstream.bindings import plain_class


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


def test_engines_get_openrlhfs_arguments_and_ours_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
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
    settings = MTPSettings.model_validate({"rollout": {"speculate": False, "dtype": "float32"}})

    create = engine.engine_factory(settings, placement_group=placement_group)
    made = create(2, 1, "a/policy", 42, False, False, True, 128)

    assert made == ["engine 1", "engine 2"]
    assert groups == [[{"GPU": 1, "CPU": 1}] * 2], "OpenRLHF no longer asks our placement group"
    assert [arguments["seed"] for arguments in engines.arguments_given] == [42, 43]
    first = engines.arguments_given[0]
    assert first["model"] == "a/policy"
    assert first["dtype"] == "float32"
    assert first["worker_extension_cls"] == "openrlhf_mtp.rollout.worker.MTPWorkerExtension"
    assert first["logprobs_mode"] == "processed_logprobs"


def test_the_drivers_call_still_fits_our_replacement() -> None:
    names = list(inspect.signature(upstream.create_vllm_engines).parameters)
    assert names[:3] == ["num_engines", "tensor_parallel_size", "pretrain"]


def test_every_rollout_goes_through_the_methods_we_measure_and_check() -> None:
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    assert "generate_responses.remote(" in inspect.getsource(SamplesGenerator._dispatch_prompts_to_vllm)
    execute = inspect.getsource(SingleTurnAgentExecutor.execute)
    assert "llm_engine.generate(" in execute
    assert "_fetch_rewards_via_func(" in execute
    assert "_fetch_rewards_via_http(" in execute
