"""RL with LoRA: engines sample from the policy with its adapters, the head trains beside them, export merges.

Each part has its own test too: a round of adapters in `test_sync_round`, the update in `test_joint_regimes`, the export
in tests/unit.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.engine import rl_jobs

pytestmark = [pytest.mark.alone, pytest.mark.nightly]


def test_a_policy_with_adapters_rolls_out_trains_and_is_exported_whole(tmp_path: Path) -> None:
    rl_jobs.write_assets(tmp_path)
    done = rl_jobs.run(
        tmp_path,
        *("train", "job.yaml", "--out", "lora", "ds.lora.rank=4", "ds.lora.alpha=64", "eval.dataset=null"),
        *("actor.adam.lr=0.003", "train.max_epochs=1"),
    )
    assert done.code == 0, done.output[-3000:]
    rows = [row for row in rl_jobs.rows(tmp_path / "lora") if row["step"] > 0]
    assert len(rows) == rl_jobs.PROMPTS // rl_jobs.JOB["rollout"]["batch_size"]
    for row in rows:
        # the engine samples from the merged weights, rounded once: were adapters not sent, this would grow with them
        assert row["spec/logprob_gap"] < 0.02
        assert row["policy/grad_norm"] > 0
        assert row["mtp/grad_norm"] > 0
        assert math.isfinite(row["spec/mean_acceptance_length"])

    final = tmp_path / "lora" / "final"
    adapter = load_file(final / "adapter_model.safetensors")
    assert any("lora_B" in name and tensor.any() for name, tensor in adapter.items()), "the adapters trained"
    before, after = (load_file(f / "mtp" / "model.safetensors") for f in (tmp_path / "policy", final))
    assert any((before[name] != after[name]).any() for name in before), "the head trained"

    exported = rl_jobs.run(tmp_path, "export", "lora/final", "--format", "merged", "--out", "whole")
    assert exported.code == 0, exported.output[-3000:]
    assert "model.blocks.0.proj.weight" in exported.output
    policies = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("whole", "policy")]
    whole, base = (dict(policy.named_parameters()) for policy in policies)
    assert whole.keys() == base.keys()
    name = "model.layers.0.self_attn.q_proj.weight"
    key = f"base_model.model.{name.removesuffix('.weight')}"
    update = adapter[f"{key}.lora_B.weight"].float() @ adapter[f"{key}.lora_A.weight"].float() * (64 / 4)
    expected = (base[name].float() + update).to(base[name].dtype)
    torch.testing.assert_close(whole[name].float(), expected.float(), rtol=2**-7, atol=1e-3)
    assert torch.equal(whole["model.norm.weight"], base["model.norm.weight"])
