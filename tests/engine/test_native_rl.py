"""Jobs with heads and policies of other kinds through all of RL: MiMo's head, Qwen3-MoE, GLM-4.5 with its own.

A MiMo head reads the policy's states before its final norm: trainer and engine must agree about that. A policy with
experts is sent to the engines as stacked matrices, which a CPU engine packs. GLM-4.5's head is drafted by vLLM's own
draft model.
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

    sizes = {**SIZES, "vocab_size": 320, "initializer_range": 0.05}
    if family == "qwen3_moe":
        config = AutoConfig.for_model(**{**sizes, **WITH_EXPERTS})
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / "source")
    else:
        write_native_checkpoint(folder / "source", family, sizes)
    equip_source(folder, "experts")


def equip_source(folder: Path, name: str) -> None:
    """The policy in `source`, with the assets' tokenizer and a head, in a folder of this name."""
    from openrlhf_mtp.heads.formats.equip import equip

    for path in (folder / "plain").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, folder / "source")
    equip(folder / "source", folder / name, depths=3)


HALF = ("ds.param_dtype=bf16", "mtp.rollout.dtype=bfloat16")
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
        "one": (EXPERTS, "mtp.head=pre/head", *HALF),
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


NATIVE = ["glm4_moe", "deepseek_v3"]


@pytest.mark.parametrize("family", NATIVE)
def test_a_policy_with_its_own_head_goes_through_everything(tmp_path: Path, family: str) -> None:
    """Its engines draft with vLLM's own draft model. RL is killed after two of three steps and goes on."""
    rl_jobs.write_assets(tmp_path)
    write_policy_with_experts(tmp_path, family)
    pretrained = rl_jobs.run(tmp_path, "pretrain", "job.yaml", EXPERTS, "--out", "pre", "data.max_samples=12")
    assert pretrained.code == 0, pretrained.output[-3000:]
    rows = rl_jobs.rows(tmp_path / "pre")
    assert rows[-1]["mtp/grad_norm"] > 0
    assert rows[-1]["eval/mtp/expected_length"] > 0
    job = ("train", "job.yaml", EXPERTS, "mtp.head=pre/head", "ckpt.save_steps=1", "eval.dataset=null", *HALF)
    killed_resumed_and_exported(tmp_path, *job)
    assert_native(tmp_path)


def killed_resumed_and_exported(folder: Path, *job: str) -> list[dict[str, float]]:
    """The rows of a run in `rl` that is killed after two of three steps and goes on; its policy is in `native` then."""
    rl_jobs.kill_at(folder / "rl", "global_step2", *job, "--out", "rl")
    done = rl_jobs.run(folder, *job, "--out", "rl", "--resume")
    assert done.code == 0, done.output[-3000:]
    rows = [row for row in rl_jobs.rows(folder / "rl") if row["step"] > 0]
    assert [row["step"] for row in rows] == [1, 2, 3]
    rl_jobs.assert_agreement(rows)
    for row in rows:
        assert row["spec/logprob_gap"] < 0.02
        assert row["spec/mean_acceptance_length"] > 1.5
        assert row["policy/grad_norm"] > 0
        assert row["mtp/grad_norm"] > 0
        assert row["sync/verify_s"] > 0
    exported = rl_jobs.run(folder, "export", "rl/final", "--format", "native", "--out", "native")
    assert exported.code == 0, exported.output[-3000:]
    return rows


def assert_native(root: Path) -> None:
    """An export has exactly the tensors of the checkpoint that was equipped, router biases as they were and in float32,
    trained experts in the head, and the copies that the layout holds."""
    (before,) = (load_file(file) for file in (root / "source").glob("*.safetensors"))
    after = {
        name: t for file in (root / "native").glob("*.safetensors") for name, t in load_file(file).items()
    }
    assert after.keys() == before.keys()
    biases = [name for name in before if name.endswith("e_score_correction_bias")]
    assert len(biases) == 2
    assert all(after[name].dtype == before[name].dtype for name in biases)
    assert all((after[name] == before[name]).all() for name in biases)
    assert (after["model.layers.2.embed_tokens.weight"] == after["model.embed_tokens.weight"]).all()
    assert (after["model.layers.2.shared_head.head.weight"] == after["lm_head.weight"]).all()
    trained = [name for name in before if name.startswith("model.layers.2.mlp.experts.")]
    assert len(trained) == 3 * WITH_EXPERTS["num_experts"]
    assert all((after[name].float() != before[name].float()).any() for name in trained)
