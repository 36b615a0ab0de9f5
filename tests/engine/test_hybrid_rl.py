"""Jobs with policies of linear attention and their own heads through all of RL: Qwen3-Next and Qwen3.5.

vLLM's CPU build runs linear attention in bfloat16 with heads of 128 alone.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.contract.test_native_loaders import stand_in_for_torchvision
from tests.engine import rl_jobs
from tests.engine.test_native_rl import HALF
from tests.engine.tiny import SIZES
from tests.natives import write_native_checkpoint

pytestmark = [pytest.mark.alone, pytest.mark.nightly]

WIDE = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
SHOWN = ("spec/logprob_gap", "spec/logprob_gap_tail", "spec/mean_acceptance_length", "spec/alpha_gap")
HYBRID = "actor.model_name_or_path=hybrid"


def write_hybrid(folder: Path, family: str) -> None:
    """A policy of one linear and one full layer in `source`, equipped in `hybrid`."""
    from openrlhf_mtp.heads.formats.equip import equip

    sizes = {**SIZES, "vocab_size": 320, "initializer_range": 0.05}
    write_native_checkpoint(folder / "source", family, sizes, **WIDE)
    for path in (folder / "plain").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, folder / "source")
    equip(folder / "source", folder / "hybrid", depths=3)


@pytest.mark.parametrize("family", ["qwen3_next", "qwen3_5"])
def test_a_hybrid_goes_through_everything(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RL is killed after two of three steps and goes on."""
    if family == "qwen3_5":  # vLLM's module of it imports torchvision
        monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # put back afterwards
        stand_in_for_torchvision(tmp_path / "stand_in")
    rl_jobs.write_assets(tmp_path)
    write_hybrid(tmp_path, family)
    pretrained = rl_jobs.run(
        tmp_path, "pretrain", "job.yaml", HYBRID, *HALF, "--out", "pre", "data.max_samples=12"
    )
    assert pretrained.code == 0, pretrained.output[-3000:]
    job = ("train", "job.yaml", HYBRID, "mtp.head=pre/head", "ckpt.save_steps=1", "eval.dataset=null", *HALF)
    rl_jobs.kill_at(tmp_path / "rl", "global_step2", *job, "--out", "rl")
    done = rl_jobs.run(tmp_path, *job, "--out", "rl", "--resume")
    assert done.code == 0, done.output[-3000:]
    rows = [row for row in rl_jobs.rows(tmp_path / "rl") if row["step"] > 0]
    assert [row["step"] for row in rows] == [1, 2, 3]
    rl_jobs.assert_agreement(rows)
    for row in rows:
        print(family, {name: row[name] for name in SHOWN})
        assert row["spec/logprob_gap"] < 0.02
        assert row["spec/mean_acceptance_length"] > 1.5
        assert row["policy/grad_norm"] > 0
        assert row["mtp/grad_norm"] > 0
        assert row["sync/verify_s"] > 0
    exported = rl_jobs.run(tmp_path, "export", "rl/final", "--format", "native", "--out", "native")
    assert exported.code == 0, exported.output[-3000:]
    assert_exported(tmp_path)


def assert_exported(root: Path) -> None:
    """An export has exactly the tensors of the checkpoint that was equipped; states, convolutions and the head were
    trained."""
    (before,) = (load_file(file) for file in (root / "source").glob("*.safetensors"))
    after = {
        name: t for file in (root / "native").glob("*.safetensors") for name, t in load_file(file).items()
    }
    assert after.keys() == before.keys()
    learned = [name for name in before if ".linear_attn." in name or name.startswith("mtp.")]
    assert any(name.endswith("conv1d.weight") for name in learned)
    assert any(name.endswith("A_log") for name in learned)
    assert [name for name in learned if (after[name].float() == before[name].float()).all()] == []
