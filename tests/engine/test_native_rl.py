"""RL with a MiMo head: trainer and engine read the policy's states before its final norm, and agree."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from tests.engine import rl_jobs


def take_over_as_mimo(folder: Path) -> None:
    """The assets' policy with a head of MiMo's wiring, and norms that make a difference."""
    import torch
    from transformers import AutoModelForCausalLM

    from openrlhf_mtp.heads.checkpoint import save_head
    from openrlhf_mtp.heads.config import HeadConfig
    from openrlhf_mtp.heads.equip import init_head

    policy = AutoModelForCausalLM.from_pretrained(folder / "plain", dtype=torch.bfloat16)
    torch.manual_seed(0)
    with torch.no_grad():
        policy.model.norm.weight.mul_(1 + torch.randn_like(policy.model.norm.weight))
    policy.save_pretrained(folder / "policy")
    head = init_head(
        HeadConfig.from_trunk(policy.config, depths=3, layout="mimo"),
        policy.model.layers[-1].state_dict(),
        policy.model.norm.weight.detach(),
    )
    save_head(folder / "policy" / "mtp", head)
    content = json.loads((folder / "policy" / "config.json").read_text())
    content["architectures"] = ["MiMoForCausalLM"]
    (folder / "policy" / "config.json").write_text(json.dumps(content))


def test_a_mimo_head_is_trained_in_rl_and_exported_under_its_own_names(tmp_path: Path) -> None:
    rl_jobs.write_assets(tmp_path)
    take_over_as_mimo(tmp_path)
    pretrained = rl_jobs.run(tmp_path, "pretrain", "job.yaml", "--out", "pre")
    assert pretrained.code == 0, pretrained.output[-3000:]
    done = rl_jobs.run(tmp_path, "train", "job.yaml", "--out", "rl", "mtp.head=pre/head", "eval.dataset=null")
    assert done.code == 0, done.output[-3000:]
    rows = [row for row in rl_jobs.rows(tmp_path / "rl") if row["step"] > 0]
    assert len(rows) == 3
    for row in rows:
        # the trainer's promise holds in the engine: both feed the head the same states
        assert abs(row["spec/alpha_gap"]) < 0.06
        assert row["spec/logprob_gap"] < 0.02
        assert row["mtp/grad_norm"] > 0
    exported = rl_jobs.run(tmp_path, "export", "rl/final", "--format", "native", "--out", "native")
    assert exported.code == 0, exported.output[-3000:]
    content = json.loads((tmp_path / "native" / "config.json").read_text())
    assert (content["architectures"], content["num_nextn_predict_layers"]) == (["MiMoForCausalLM"], 1)
    trained = load_file(tmp_path / "rl" / "final" / "mtp" / "model.safetensors")
    native = load_file(tmp_path / "native" / "model-mtp.safetensors")
    fc = native["model.mtp_layers.0.input_proj.weight"]
    assert (fc == trained["model.blocks.0.proj.weight"]).all()
