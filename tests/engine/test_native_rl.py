"""Jobs with heads and policies of other kinds: MiMo's head and Qwen3-MoE through all of RL, GLM-4.5 before it.

A MiMo head reads the policy's states before its final norm: trainer and engine must agree about that. A policy with
experts is sent to the engines as stacked matrices, which a CPU engine packs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.engine import rl_jobs
from tests.engine.tiny import SIZES, WITH_EXPERTS
from tests.natives import write_native_checkpoint

pytestmark = [pytest.mark.alone, pytest.mark.nightly]


def take_over_as_mimo(folder: Path) -> None:
    """The assets' policy with a head of MiMo's wiring, and norms that make a difference."""
    import torch
    from transformers import AutoModelForCausalLM

    from openrlhf_mtp.heads.formats.equip import init_head
    from openrlhf_mtp.heads.formats.head_folder import save_head
    from openrlhf_mtp.heads.head_config import HeadConfig

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
        assert row["spec/logprob_gap"] < 0.02
        assert row["mtp/grad_norm"] > 0
    rl_jobs.assert_agreement(rows)  # both feed the head the same states
    exported = rl_jobs.run(tmp_path, "export", "rl/final", "--format", "native", "--out", "native")
    assert exported.code == 0, exported.output[-3000:]
    content = json.loads((tmp_path / "native" / "config.json").read_text())
    assert (content["architectures"], content["num_nextn_predict_layers"]) == (["MiMoForCausalLM"], 1)
    trained = load_file(tmp_path / "rl" / "final" / "mtp" / "model.safetensors")
    native = load_file(tmp_path / "native" / "model-mtp.safetensors")
    fc = native["model.mtp_layers.0.input_proj.weight"]
    assert (fc == trained["model.blocks.0.proj.weight"]).all()


def write_policy_with_experts(folder: Path, family: str) -> None:
    """A policy in `experts`: Qwen3-MoE with a new dense head, or GLM-4.5 with its own, which has experts too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from openrlhf_mtp.heads.formats.equip import equip

    sizes = {**SIZES, "vocab_size": 320, "initializer_range": 0.05}
    if family == "qwen3_moe":
        config = AutoConfig.for_model(**{**sizes, **WITH_EXPERTS})
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / "source")
    else:
        write_native_checkpoint(folder / "source", family, sizes)
    for path in (folder / "plain").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, folder / "source")
    equip(folder / "source", folder / "experts", depths=3)


EXPERTS = "actor.model_name_or_path=experts"
TWO_RANKS = ("actor.num_gpus_per_node=2", "vllm.num_engines=2", "ds.zero_stage=3", "mtp.sync.backend=gloo")


def test_a_policy_with_experts_goes_through_everything(tmp_path: Path) -> None:
    """On one rank with ZeRO-2 and bfloat16, and on two with ZeRO-3 and two engines, whose policy it goes on from."""
    rl_jobs.write_assets(tmp_path)
    write_policy_with_experts(tmp_path, "qwen3_moe")
    pretrained = rl_jobs.run(tmp_path, "pretrain", "job.yaml", EXPERTS, "--out", "pre")
    assert pretrained.code == 0, pretrained.output[-3000:]
    job = ("train", "job.yaml", "eval.dataset=null", "actor.aux_loss_coef=0.001")
    runs = {
        "one": (EXPERTS, "mtp.head=pre/head", "ds.param_dtype=bf16", "mtp.rollout.dtype=bfloat16"),
        "two": (EXPERTS, "mtp.head=pre/head", *TWO_RANKS),
    }
    for name, flags in runs.items():
        done = rl_jobs.run(tmp_path, *job, "--out", name, *flags)
        assert done.code == 0, done.output[-3000:]
        rows = [row for row in rl_jobs.rows(tmp_path / name) if row["step"] > 0]
        assert len(rows) == 3
        rl_jobs.assert_agreement(rows)
        for row in rows:
            assert row["spec/logprob_gap"] < 0.02
            assert row["spec/logprob_gap_tail"] < 0.02
            assert row["spec/mean_acceptance_length"] > 1.5
            assert row["policy/grad_norm"] > 0
            assert row["mtp/grad_norm"] > 0
            assert row["sync/verify_s"] > 0
            assert row["sync/rpc_calls"] == (1 if name == "one" else 2)
    exported = rl_jobs.run(tmp_path, "export", "two/final", "--format", "merged", "--out", "out")
    assert exported.code == 0, exported.output[-3000:]
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("experts", "out"))
    assert before.keys() == after.keys()
    experts = [name for name in before if ".experts." in name]
    assert len(experts) == 2 * 3 * WITH_EXPERTS["num_experts"]
    assert all((before[name].float() != after[name].float()).any() for name in experts), "each was trained"


def test_the_stage_before_rl_trains_the_head_of_a_policy_with_experts(tmp_path: Path) -> None:
    family = "glm4_moe"
    rl_jobs.write_assets(tmp_path)
    write_policy_with_experts(tmp_path, family)
    policy = EXPERTS
    done = rl_jobs.run(tmp_path, "pretrain", "job.yaml", policy, "--out", "pre", "data.max_samples=12")
    assert done.code == 0, done.output[-3000:]
    rows = rl_jobs.rows(tmp_path / "pre")
    assert rows[-1]["mtp/grad_norm"] > 0
    assert rows[-1]["eval/mtp/expected_length"] > 0
    before, after = (
        load_file(head / "model.safetensors")
        for head in (tmp_path / "experts" / "mtp", tmp_path / "pre" / "head")
    )
    assert any((before[name].float() != after[name].float()).any() for name in before)
    exported = rl_jobs.run(
        tmp_path, "export", "experts", "--head", "pre/head", "--format", "native", "--out", "out"
    )
    assert exported.code == 0, exported.output[-3000:]
    refused = rl_jobs.run(tmp_path, "check", "job.yaml", policy)
    assert refused.code == 2
    assert f"weights of the model family {family} cannot be sent to engines" in " ".join(
        refused.output.split()
    )
