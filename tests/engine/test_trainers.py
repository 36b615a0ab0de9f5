"""Whole runs of what docs/trainers.md allows: `pretrain` with a policy that ZeRO-3 shares out, and partial rollouts.

Their parts have tests that run every time: `test_two_ranks` and `test_sync_round`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from openrlhf_mtp.runlog.temperature_sweep import read_temperatures
from tests.engine import rl_jobs

pytestmark = [pytest.mark.alone, pytest.mark.nightly]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("trainers")
    rl_jobs.write_assets(folder)
    return folder


def test_the_head_is_trained_on_a_policy_that_zero_3_shares_out(assets: Path) -> None:
    words = ("ds.zero_stage=3", "mtp.pretrain.num_ranks=2", "mtp.pretrain.micro_batch_size=4")
    done = rl_jobs.run(assets, "pretrain", "job.yaml", "--out", "pre", *words)
    assert done.code == 0, done.output[-3000:]
    assert done.leftovers == []
    rows = rl_jobs.rows(assets / "pre")
    assert len(rows) == 6, "three passes over 44 responses in batches of 16"
    assert rows[-1]["mtp/expected_length"] > rows[0]["mtp/expected_length"]
    assert rows[-1]["eval/mtp/expected_length"] > 1
    assert len(read_temperatures(assets / "pre" / "head", pytest.fail)) == 3


def test_partial_rollouts_train_with_a_verified_round_in_each_step(assets: Path) -> None:
    done = rl_jobs.run(
        assets,
        *(
            "train",
            "job.yaml",
            "--out",
            "partial",
            "train.async_enable=true",
            "train.partial_rollout_enable=true",
        ),
        *("vllm.enable_prefix_caching=true", "eval.dataset=null"),
    )
    assert done.code == 0, done.output[-3000:]
    assert done.leftovers == []
    rows = [row for row in rl_jobs.rows(assets / "partial") if row["step"] > 0]
    assert len(rows) == rl_jobs.PROMPTS // rl_jobs.JOB["rollout"]["batch_size"]
    for row in rows:
        assert row["sync/verify_s"] > 0
        assert row["policy/grad_norm"] > 0
        # of the update or two between sampling and training, not of weights that never came
        assert row["spec/logprob_gap"] < 0.3
    assert rows[0]["spec/drafts"] > 0  # a later step's may all have ended in the step before
