"""Jobs with policies of linear attention and their own heads through all of RL: Qwen3-Next and Qwen3.5.

vLLM's CPU build runs linear attention in bfloat16 with heads of 128 alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.contract.test_native_loaders import stand_in_for_torchvision
from tests.engine import rl_jobs
from tests.engine.test_native_rl import HALF, equip_source, killed_resumed_and_exported
from tests.engine.tiny import SIZES
from tests.natives import write_native_checkpoint

pytestmark = [pytest.mark.alone, pytest.mark.nightly]

WIDE = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
SHOWN = ("spec/logprob_gap", "spec/logprob_gap_tail", "spec/mean_acceptance_length", "spec/alpha_gap")
HYBRID = "actor.model_name_or_path=hybrid"


def write_hybrid(folder: Path, family: str) -> None:
    """A policy of one linear and one full layer in `source`, equipped in `hybrid`."""
    sizes = {**SIZES, "vocab_size": 320, "initializer_range": 0.05}
    write_native_checkpoint(folder / "source", family, sizes, **WIDE)
    equip_source(folder, "hybrid")


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
    for row in killed_resumed_and_exported(tmp_path, *job):
        print(family, {name: row[name] for name in SHOWN})
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
