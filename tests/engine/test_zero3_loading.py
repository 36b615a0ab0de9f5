"""A policy sharded by ZeRO-3 over two CPU ranks starts as the one in its checkpoint, every time.

DeepSpeed waits for the last of several gathers only. Over gloo the others could still run and overwrite what had been
loaded: 2 of 6 loads left whole parameters as uninitialized memory, and the run trained on NaN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine import trainer_runs as runs
from tests.engine.tiny import WITH_EXPERTS
from tests.processes import on_ranks

LOADS = 8


def expected_parameters(folder: Path) -> dict[str, Any]:
    """The file's tensors, experts stacked as transformers holds them."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    for layer in {name.split(".experts.")[0] for name in tensors if ".experts.0." in name}:
        gates, ups, downs = (
            [
                tensors.pop(f"{layer}.experts.{n}.{matrix}_proj.weight")
                for n in range(WITH_EXPERTS["num_experts"])
            ]
            for matrix in ("gate", "up", "down")
        )
        tensors[f"{layer}.experts.gate_up_proj"] = torch.cat([torch.stack(gates), torch.stack(ups)], 1)
        tensors[f"{layer}.experts.down_proj"] = torch.stack(downs)
    return tensors


def wrong_parameters(folder: Path, out: Path) -> list[str]:
    """Load, shard and gather again; names of the parameters that are not those of the file."""
    runs.prepare()
    import deepspeed
    from openrlhf.utils import get_strategy

    from openrlhf_mtp.training.observed_policy import ObservedPolicy

    expected = expected_parameters(folder)
    strategy = get_strategy(runs.arguments(folder, out, None, ds__zero_stage=3))
    strategy.setup_distributed()
    wrong = []
    for attempt in range(LOADS):
        config = strategy.get_ds_train_config()
        policy = ObservedPolicy(
            str(folder), attn_implementation="sdpa", param_dtype="bf16", ds_config=config
        ).model
        for name, parameter in policy.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter]):
                if not parameter.data.equal(expected[name].bfloat16()):
                    wrong.append(f"load {attempt}: {name}")
    return wrong


def test_every_load_gives_every_rank_the_checkpoints_weights(tmp_path):
    folder = runs.write_policy(tmp_path / "policy")
    assert on_ranks(2, wrong_parameters, folder, tmp_path / "out") == [[], []]


@pytest.mark.nightly
def test_every_load_gives_every_rank_the_checkpoints_experts(tmp_path):
    folder = runs.write_policy(tmp_path / "policy", changes=WITH_EXPERTS)
    assert on_ranks(2, wrong_parameters, folder, tmp_path / "out") == [[], []]


def rotary_frequencies(folder: Path, out: Path, zero_stage: int) -> list[float]:
    """The frequencies that the policy computes with, after DeepSpeed has wrapped it."""
    actor = runs.build_actor(runs.arguments(folder, out, None, ds__zero_stage=zero_stage))
    found: list[float] = actor.actor.model.module.model.rotary_emb.inv_freq.tolist()
    return found


def test_a_sharded_policy_has_the_rotary_frequencies_of_a_whole_one(tmp_path):
    """DeepSpeed rounds what is built under ZeRO-3 to bfloat16, the frequencies too, unless they are restored."""
    folder = runs.write_policy(tmp_path / "policy")
    whole = on_ranks(1, rotary_frequencies, folder, tmp_path / "out", 2)[0]
    assert on_ranks(2, rotary_frequencies, folder, tmp_path / "out", 3) == [whole, whole]
