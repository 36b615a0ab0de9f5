"""Whole runs through the command line on CPU: Ray, DeepSpeed and vLLM are the real ones.

Exit code 0 proves little on this stack, so each run must show finite numbers, rewards that were computed, engines and
trainer that agree on log-probs, accepted drafts, and no process left behind.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from openrlhf_mtp.runlog.rollouts import read_rollouts
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.temperature_sweep import read_temperatures
from tests.engine import rl_jobs
from tests.engine.rl_jobs import Finished
from tests.patience import seconds

pytestmark = pytest.mark.alone

ON_REQUEST = ("mtp.head=pre/head", "ckpt.save_steps=2", "mtp.record.rollouts=true")
STEPS = rl_jobs.PROMPTS // rl_jobs.JOB["rollout"]["batch_size"]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("rl")
    rl_jobs.write_assets(folder)
    return folder


def assert_sound(
    done: Finished,
    out: Path,
    *,
    steps: int = STEPS,
    max_gap: float = 0.02,
    max_alpha_gap: float | None = None,
) -> list[dict[str, float]]:
    """What every finished RL run must show."""
    assert done.code == 0, done.output[-3000:]
    assert done.leftovers == []
    rows = [row for row in rl_jobs.rows(out) if row["step"] > 0]
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    for row in rows:
        broken = [name for name, value in row.items() if value is None or not math.isfinite(value)]
        assert not broken, f"step {row['step']}: {broken}"
        assert 0 < row["policy/reward"] < 1, "digits among random bytes: some, not all"
        assert row["policy/grad_norm"] > 0
        assert row["spec/logprob_gap"] < max_gap
        assert row["spec/mean_acceptance_length"] > 1.5
        assert row["spec/drafts"] > 0
        assert row["sync/bytes"] > 100_000
        assert row["sync/verify_s"] > 0
        assert 0.5 < row["mtp/accepted_std"] < 1.5, "of three drafted tokens"
        quarters = [row[f"spec/mean_acceptance_length/quarter_{q}"] for q in (1, 2, 3, 4)]
        assert min(quarters) <= row["spec/mean_acceptance_length"] <= max(quarters), "the same drafts"
        if max_alpha_gap is None:
            assert_drafts_are_of_the_step(row)
        assert 1 <= row["spec/acceptance_length_p10"] <= 4
    if max_alpha_gap is None:
        rl_jobs.assert_agreement(rows)
    else:
        assert max(abs(row["spec/alpha_gap"]) for row in rows) < max_alpha_gap
    return rows


def assert_drafts_are_of_the_step(row: dict[str, float]) -> None:
    """Drafts, accepted tokens and a first token each are the step's responses, without what lies beyond their ends.

    Most responses are cut at their limit; the last draft of one that is cut gives no token of the policy's own.
    """
    responses = rl_jobs.JOB["rollout"]["batch_size"] * rl_jobs.JOB["rollout"]["n_samples_per_prompt"]
    tokens = row["policy/response_length"] * responses
    assert row["policy/truncated_rate"] > 0.5
    from_drafts = row["spec/drafts"] * row["spec/mean_acceptance_length"]
    assert tokens - responses - 0.1 <= from_drafts <= tokens + 0.1


def nbytes(folder: Path) -> int:
    """Of what is sent: a tied output head, which OpenRLHF saves beside the embedding, once."""
    tensors = load_file(folder / "model.safetensors")
    return sum(t.numel() * t.element_size() for name, t in tensors.items() if name != "lm_head.weight")


def tensors(folder: Path) -> dict[str, object]:
    return dict(load_file(folder / "model.safetensors"))


def test_the_main_job_equips_pretrains_trains_and_reports(assets: Path) -> None:
    pretrained = rl_jobs.run(assets, "pretrain", "job.yaml", "--out", "pre")
    assert pretrained.code == 0, pretrained.output[-3000:]
    assert pretrained.leftovers == []
    head_rows = rl_jobs.rows(assets / "pre")
    shard = (assets / "pre" / "responses" / "shard-00000.jsonl").read_text().splitlines()
    assert len(shard) == 2 * rl_jobs.PROMPTS, "every sample of every prompt, not only the last to end"
    assert len(head_rows) == 6, "three passes over 44 responses in batches of 16"
    assert head_rows[-1]["eval/mtp/expected_length"] > 1
    machine = json.loads((assets / "pre" / "machine.json").read_text())
    assert machine["hidden_states"]["stored"], "three passes read every response three times"
    assert not (assets / "pre" / "states").exists(), "the end of the stage gives the disk back"
    sweep = read_temperatures(assets / "pre" / "head", pytest.fail)
    assert [point.temperature for point in sweep] == pytest.approx([0.8, 1.0, 1.2])
    assert [point.entropy for point in sweep] == sorted(point.entropy for point in sweep)
    assert all(1.0 < point.length < 4.0 for point in sweep)

    calls = assets / "reward_calls"
    calls.unlink(missing_ok=True)
    done = rl_jobs.run(assets, "train", "job.yaml", "--out", "rl", *ON_REQUEST)
    rows = assert_sound(done, assets / "rl")
    samples = (
        rl_jobs.PROMPTS * 4 + 2 * rl_jobs.HELD_OUT * 2
    )  # training, and an evaluation before and after it
    assert len(calls.read_text()) == samples
    assert all(row["mtp/grad_norm"] > 0 and row["time/mtp_s"] > 0 for row in rows)
    assert {row["sync/rpc_calls"] for row in rows} == {1}
    final = assets / "rl" / "final"
    assert {row["sync/bytes"] for row in rows} == {nbytes(final) + nbytes(final / "mtp")}, "policy and head"
    for row in rows:
        # an evaluation's tokens, 16 responses, are not the next step's
        generated = row["policy/response_length"] * rl_jobs.JOB["rollout"]["batch_size"] * 4
        assert row["perf/rollout_tokens"] == pytest.approx(generated, rel=0.05)

    for row in rows:
        kept = read_rollouts(assets / "rl", row["step"])
        assert len(kept) == 4 * rl_jobs.JOB["rollout"]["batch_size"]
        assert np.mean([each.reward for each in kept]) == pytest.approx(row["policy/reward"], abs=1e-6)
        lengths = [end - start for each in kept for start, end in each.sampled]
        assert np.mean(lengths) == pytest.approx(row["policy/response_length"], abs=1e-3)
        by_reward = np.corrcoef([each.reward for each in kept], [each.advantage for each in kept])
        assert by_reward[0, 1] > 0.3, "an advantage is a reward less its group's mean"

    before, after = tensors(assets / "pre" / "head"), tensors(assets / "rl" / "final" / "mtp")
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before), "the head was trained during RL"
    # entropy against acceptance, anchor by anchor, of the rollout and of held-out prompts
    (recorded,) = read_run(assets / "rl").records.values()
    (*_, before_rl) = read_run(assets / "pre").held_out.values()
    during_rl = read_run(assets / "rl").held_out
    assert list(during_rl) == [0, len(rows)], "an evaluation before the first step and after the last"
    for records in (recorded, before_rl, *during_rl.values()):
        counted = np.isfinite(records.alpha)
        assert counted[:, 0].all()
        assert (np.isfinite(records.greedy) == counted).all()
        assert len(np.unique(records.response)) > 1
    evaluated = rl_jobs.rows(assets / "rl")[-1]
    counted = np.isfinite(during_rl[len(rows)].alpha[:, 0])
    for name, recorded in (
        ("alpha", during_rl[len(rows)].alpha),
        ("alpha_greedy", during_rl[len(rows)].greedy),
    ):
        mean = float(recorded[counted, 0].mean())
        assert evaluated[f"eval/mtp/{name}/depth_1"] == pytest.approx(mean, rel=1e-4)
    for name in ("run.yaml", "command.txt", "summary.json", "report.html", "figures/reward.png"):
        assert (assets / "rl" / name).stat().st_size > 0, name
    summary = json.loads((assets / "rl" / "summary.json").read_text())
    assert summary["not_finite"] == {}


def test_ppo_with_critic_kl_penalty_and_two_ranks_that_each_feed_an_engine_of_their_own(assets: Path) -> None:
    done = rl_jobs.run(
        assets,
        *("train", "job.yaml", "--out", "ppo", "algo.advantage.estimator=gae", "train.max_epochs=2"),
        *("critic.model_name_or_path=plain", "critic.num_nodes=1", "critic.num_gpus_per_node=1"),
        *("actor.num_gpus_per_node=2", "ref.num_nodes=1", "ref.num_gpus_per_node=2"),
        *("vllm.num_engines=2", "train.colocate_all=true", "mtp.sync.backend=ipc"),
        *("algo.kl.init_coef=0.01", "mtp.objective=tv", "eval.dataset=null"),
    )
    rows = assert_sound(done, assets / "ppo")
    assert {row["sync/rpc_calls"] for row in rows} == {2}
    assert all(math.isfinite(row["critic/loss"]) for row in rows)
    assert rows[-1]["policy/kl"] != 0


def test_asynchronous_mode_with_two_engines_of_two_workers_and_kl_loss(assets: Path) -> None:
    done = rl_jobs.run(
        assets,
        *("train", "job.yaml", "--out", "async", "train.async_enable=true", "vllm.num_engines=2"),
        "vllm.tensor_parallel_size=2",
        "mtp.sync.backend=gloo",
        *("algo.kl.init_coef=0.001", "algo.kl.use_loss=true", "algo.kl.estimator=k3"),
        *("ref.num_nodes=1", "ref.num_gpus_per_node=1", "mtp.objective=ce", "eval.steps=2"),
    )
    # the samples of a step come from the policy of the step before, so the gap is the update's size; and what the
    # engines have drafted since the last step are not all of the step's own samples (0.10 seen with 129 drafts, a
    # standard error of 0.03: beside such a shift chance passes 0.25 once in a million steps)
    rows = assert_sound(done, assets / "async", max_gap=0.3, max_alpha_gap=0.25)
    assert {row["sync/rpc_calls"] for row in rows} == {2}
    assert "eval/accuracy" in rows[1], "the generating side's evaluation is logged with its step"


def test_a_killed_run_resumes_where_it_was_and_a_frozen_head_stays_as_it_is(assets: Path) -> None:
    words = (
        "train",
        "job.yaml",
        "--out",
        "cut",
        "ckpt.save_steps=1",
        "mtp.regime=frozen",
        "eval.dataset=null",
    )
    process = rl_jobs.start(assets, *words)
    saved = assets / "cut" / "checkpoints" / "_actor" / "latest"
    end = time.monotonic() + seconds(600)
    while not (saved.exists() and saved.read_text() == "global_step2"):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, "the second checkpoint never came"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert rl_jobs.processes_of_session(process.pid) == [], "a killed driver takes its cluster along"

    kept = [row for row in rl_jobs.rows(assets / "cut") if row["step"] <= 2]
    done = rl_jobs.run(assets, *words, "--resume")
    rows = assert_sound(done, assets / "cut")
    assert rows[:2] == kept, "steps before the checkpoint are not trained again"
    assert rows[2]["policy/lr"] < rows[1]["policy/lr"] < rows[0]["policy/lr"], "the schedule continues"
    head, exported = tensors(assets / "policy" / "mtp"), tensors(assets / "cut" / "final" / "mtp")
    assert all((head[name] == exported[name]).all() for name in head)


def test_a_reward_function_that_raises_stops_the_run_and_is_shown(assets: Path) -> None:
    done = rl_jobs.run(assets, "train", "job.yaml", "--out", "bad", "reward.remote_url=raising.py")
    assert done.code == 2 or done.code == 1, done.output[-2000:]
    assert "gold answer of" in " ".join(done.output.split())
    assert done.leftovers == []
