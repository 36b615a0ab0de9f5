"""`ds.enable_sleep` covers the head: its optimizer leaves the GPU with the policy's, and comes back unchanged.

On a CPU the states are copied to where they are already, by the same code of OpenRLHF and DeepSpeed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.processes import in_fresh_process


def order_of_calls() -> list[list[Any]]:
    """Which engines a trainer puts away and takes back, with a head and without an engine for it."""
    from types import SimpleNamespace
    from unittest.mock import patch

    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    import openrlhf.trainer.ray.ppo_actor as upstream

    from openrlhf_mtp.training import ray_actor

    calls: list[list[Any]] = []
    for head_trainer in (SimpleNamespace(engine="head"), SimpleNamespace(engine=None), None):
        actor = object.__new__(ray_actor.PolicyActor)
        actor.actor = SimpleNamespace(model="policy")
        actor.trainer = SimpleNamespace(head_trainer=head_trainer)
        seen: list[Any] = []

        def note(name: str, engine: Any, seen: list[Any] = seen) -> None:
            seen.append([name, engine])

        noted: dict[str, Any] = {
            name: partial(note, name) for name in ("offload_deepspeed_states", "reload_deepspeed_states")
        }
        with patch.multiple(upstream, **noted), patch.multiple(ray_actor, **noted):
            actor.offload_states()
            actor.reload_states()
        calls.append(seen)
    return calls


def heads_after_training() -> dict[int, dict[str, list[Any]]]:
    """For a policy's ZeRO stage, a head that slept between its steps beside one that did not: whether each tensor is
    equal, and the states that were put away."""
    from types import SimpleNamespace

    import torch
    import torch.distributed as dist
    from openrlhf.utils.deepspeed import DeepspeedStrategy
    from openrlhf.utils.deepspeed.deepspeed_utils import offload_deepspeed_states, reload_deepspeed_states

    from openrlhf_mtp.config.settings.pretrain import HeadOptim
    from openrlhf_mtp.training.head_engine import build_head_engine
    from tests.unit.heads.tiny import random_head

    dist.init_process_group("gloo")
    args = SimpleNamespace(ds=SimpleNamespace(param_dtype="fp32"), train=SimpleNamespace())
    found = {}
    for stage in (2, 3):
        strategy = DeepspeedStrategy(zero_stage=stage, args=args, train_batch_size=1)
        strategy.world_size, strategy.ring_attn_size, strategy.ds_tensor_parallel_size = 1, 1, 1
        trained, away = [], set()
        for sleeps in (False, True):
            torch.manual_seed(0)
            engine = build_head_engine(random_head("qwen2"), strategy, HeadOptim(lr=0.1))
            for _ in range(3):
                engine.backward(sum(p.square().sum() for p in engine.module.parameters()))
                engine.step()
                if sleeps:
                    offload_deepspeed_states(engine)
                    away |= {state.name for state in engine.optimizer.offloaded_states}
                    reload_deepspeed_states(engine)
            trained.append([p.detach().clone() for p in engine.module.parameters()])
        equal = [bool(torch.equal(awake, slept)) for awake, slept in zip(*trained, strict=True)]
        found[stage] = {"equal": equal, "away": sorted(away)}
    return found


def measure() -> dict[str, Any]:
    """Both in one process, which spends most of its time importing OpenRLHF."""
    return {"calls": order_of_calls(), "heads": heads_after_training()}


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    found: dict[str, Any] = in_fresh_process(measure)
    return found


def test_the_heads_engine_is_put_away_and_taken_back_with_the_policys(measured: dict[str, Any]):
    with_head, frozen, without = measured["calls"]
    assert with_head == [
        ["offload_deepspeed_states", "policy"],
        ["offload_deepspeed_states", "head"],
        ["reload_deepspeed_states", "policy"],
        ["reload_deepspeed_states", "head"],
    ]
    assert frozen == without == [call for call in with_head if call[1] == "policy"]


@pytest.mark.parametrize("stage", [2, 3])
def test_a_head_that_slept_trains_on_as_if_it_had_not(measured: dict[str, Any], stage: int):
    head = measured["heads"][stage]
    assert head["away"] == ["hp_params", "lp_grads", "optim_states"]
    assert head["equal"]
    assert all(head["equal"])
