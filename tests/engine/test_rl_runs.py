"""Whole runs through the command line on CPU: Ray, DeepSpeed and vLLM are the real ones.

Exit code 0 proves little on this stack, so each run must show finite numbers, rewards that were computed, engines and
trainer that agree on log-probs, accepted drafts, and no process left behind. A start costs most of a run's time, so
each run has several of OpenRLHF's modes; docs/modes.md says which mode is in which run.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from openrlhf_mtp.config.checkpoints import ACTOR, HEAD
from openrlhf_mtp.runlog.rollouts import read_rollouts
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.temperature_sweep import read_temperatures
from tests.engine import rl_jobs, rl_modes
from tests.engine.rl_jobs import Finished

pytestmark = pytest.mark.alone

RECORD = "mtp.record.rollouts=true"
ON_REQUEST = ("mtp.head=pre/head", "ckpt.save_steps=2", RECORD)
STEPS = rl_jobs.PROMPTS // rl_jobs.JOB["rollout"]["batch_size"]
SAMPLES = rl_jobs.JOB["rollout"]["batch_size"] * rl_jobs.JOB["rollout"]["n_samples_per_prompt"]
ONE_UPDATE = f"train.batch_size={SAMPLES}"
"""An RL step is one update then, and its checkpoint holds what the update led to."""


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
    return sound_rows(out, steps=steps, max_gap=max_gap, max_alpha_gap=max_alpha_gap)


def sound_rows(
    out: Path, *, steps: int = STEPS, max_gap: float = 0.02, max_alpha_gap: float | None = None
) -> list[dict[str, float]]:
    """The rows of so many RL steps, each of which must be right in itself."""
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
            assert_drafts_are_of_the_step(out, row)
        assert 1 <= row["spec/acceptance_length_p10"] <= 4
    if max_alpha_gap is None:
        rl_jobs.assert_agreement(rows)
    else:
        assert max(abs(row["spec/alpha_gap"]) for row in rows) < max_alpha_gap
    return rows


def assert_drafts_are_of_the_step(out: Path, row: dict[str, float]) -> None:
    """Drafts, accepted tokens and a first token each are the step's responses, without what lies beyond their ends.

    Most responses are cut at their limit; the last draft of one that is cut gives no token of the policy's own. Of an
    agent, a response here is a turn.
    """
    if (out / "rollouts").exists():
        lengths = turn_lengths(out, row["step"])
        tokens, responses = sum(lengths), len(lengths)
    else:
        assert row["policy/truncated_rate"] > 0.5
        tokens, responses = row["policy/response_length"] * SAMPLES, SAMPLES
    from_drafts = row["spec/drafts"] * row["spec/mean_acceptance_length"]
    assert tokens - responses - 0.1 <= from_drafts <= tokens + 0.1


def turn_lengths(out: Path, step: float) -> list[int]:
    """Tokens of each span that the policy sampled in an RL step."""
    return [end - start for each in read_rollouts(out, int(step)) for start, end in each.sampled]


def nbytes(folder: Path) -> int:
    """Of what is sent: a tied output head, which OpenRLHF saves beside the embedding, once."""
    tensors = load_file(folder / "model.safetensors")
    return sum(t.numel() * t.element_size() for name, t in tensors.items() if name != "lm_head.weight")


def tensors(folder: Path) -> dict[str, Any]:
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
        generated = row["policy/response_length"] * SAMPLES
        assert row["perf/rollout_tokens"] == pytest.approx(generated, rel=0.05)

    for row in rows:
        kept = read_rollouts(assets / "rl", row["step"])
        assert len(kept) == SAMPLES
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


def test_ppo_with_critic_reward_model_and_two_ranks_that_each_feed_an_engine_of_their_own(
    assets: Path,
) -> None:
    rl_modes.write_reward_model(assets)
    done = rl_jobs.run(
        assets,
        *("train", "job.yaml", "--out", "ppo", "algo.advantage.estimator=gae", "train.max_epochs=2"),
        *("critic.model_name_or_path=plain", "critic.num_nodes=1", "critic.num_gpus_per_node=1"),
        *("reward.remote_url=null", "reward.model_name_or_path=scorer", "reward.normalize_enable=true"),
        *("reward.num_nodes=1", "reward.num_gpus_per_node=1", "eval.dataset=null", RECORD),
        *("actor.num_gpus_per_node=2", "ref.num_nodes=1", "ref.num_gpus_per_node=2"),
        *("vllm.num_engines=2", "train.colocate_all=true", "mtp.sync.backend=ipc"),
        *("algo.kl.init_coef=0.01", "mtp.objective=tv"),
    )
    rows = assert_sound(done, assets / "ppo")
    assert {row["sync/rpc_calls"] for row in rows} == {2}
    assert all(math.isfinite(row["critic/loss"]) for row in rows)
    assert rows[-1]["policy/kl"] != 0
    judged = [each for row in rows for each in read_rollouts(assets / "ppo", row["step"])]
    rewards, expected = np.array([each.reward for each in judged]), rl_modes.scores(assets, judged)
    assert np.abs(rewards - expected).max() < 0.01, (
        "in bfloat16; without its scale the model says other numbers"
    )
    assert np.corrcoef(rewards, expected)[0, 1] > 0.99


def test_asynchronous_mode_with_engines_of_two_workers_a_reward_server_filtering_and_averages(
    assets: Path,
) -> None:
    out = assets / "async"
    with rl_modes.reward_server() as (url, judge):
        done = rl_jobs.run(
            assets,
            *("train", "job.yaml", "--out", "async", "train.async_enable=true", "vllm.num_engines=2"),
            *("vllm.tensor_parallel_size=2", "mtp.sync.backend=gloo", f"reward.remote_url={url}"),
            *("algo.dynamic_filtering_enable=true", RECORD, "eval.steps=1"),
            *("train.enable_ema=true", "train.ema_beta=0.5", ONE_UPDATE, "ckpt.save_steps=1"),
            *("algo.kl.init_coef=0.001", "algo.kl.use_loss=true", "algo.kl.estimator=k3"),
            *("ref.num_nodes=1", "ref.num_gpus_per_node=1", "mtp.objective=ce"),
        )
    # the samples of a step come from the policy of the step before, so the gap is the update's size; and what the
    # engines have drafted since the last step are not all of the step's own samples (0.10 seen with 129 drafts, a
    # standard error of 0.03: beside such a shift chance passes 0.25 once in a million steps)
    rows = assert_sound(done, out, steps=2, max_gap=0.3, max_alpha_gap=0.25)
    assert {row["sync/rpc_calls"] for row in rows} == {2}
    assert "eval/accuracy" in rows[0], "the generating side's evaluation is logged with its step"
    assert_what_the_server_passed_was_trained_on(out, rows, judge)
    assert_averages(assets, out, beta=0.5, steps=2)


def assert_what_the_server_passed_was_trained_on(
    out: Path, rows: list[dict[str, float]], judge: rl_modes.RewardServer
) -> None:
    """Every prompt was judged; all whose mean is above 0 were trained on, with the server's numbers, and no other."""
    asked = {prompt: rewards for prompt, rewards in judge.given.items() if f"+{rl_jobs.PROMPTS}=" in prompt}
    assert sum(len(rewards) for rewards in asked.values()) == 4 * rl_jobs.PROMPTS
    assert sum(len(rewards) for rewards in judge.given.values()) == 4 * rl_jobs.PROMPTS + 2 * rl_jobs.HELD_OUT
    passed = sorted(reward for rewards in asked.values() if sum(rewards) > 0 for reward in rewards)
    trained = [each for row in rows for each in read_rollouts(out, row["step"])]
    assert len(passed) == 2 * SAMPLES, "a third of the prompts is worthless"
    np.testing.assert_allclose(sorted(each.reward for each in trained), passed, rtol=1e-6)


def assert_averages(assets: Path, out: Path, *, beta: float, steps: int) -> None:
    """What is exported of policy and head is the exponential average of what each update led to."""
    for role, start, exported in (
        (ACTOR, assets / "policy", out / "final"),
        (HEAD, assets / "policy" / "mtp", out / "final" / "mtp"),
    ):
        expected = {name: tensor.double() for name, tensor in tensors(start).items()}
        updates = [rl_modes.saved(out, role, step) for step in range(1, steps + 1)]
        for update in updates:
            expected = {
                name: beta * old + (1 - beta) * update[name].double() for name, old in expected.items()
            }
        found = tensors(exported)
        for name, average in expected.items():
            rounding = 2**-7 * average.abs() + 1e-9  # to bfloat16, or to nothing
            assert ((found[name].double() - average).abs() <= rounding).all(), f"{role} {name}"
        assert any((found[name] != updates[-1][name]).any() for name in expected), "an average, not the last"


def test_a_killed_run_of_an_agent_resumes_where_it_was_and_a_frozen_head_stays_as_it_is(assets: Path) -> None:
    rl_modes.write_ending_policy(assets)
    (assets / "agent.py").write_text(rl_modes.AGENT)
    words = (
        *("train", "job.yaml", "--out", "cut", "ckpt.save_steps=1", "mtp.regime=frozen", "eval.dataset=null"),
        *(
            "actor.model_name_or_path=ending",
            "reward.remote_url=null",
            "train.agent_func_path=agent.py",
            RECORD,
        ),
    )
    rl_jobs.kill_at(assets / "cut", "global_step2", *words)
    kept = [row for row in rl_jobs.rows(assets / "cut") if row["step"] <= 2]
    done = rl_jobs.run(assets, *words, "--resume")
    rows = assert_sound(done, assets / "cut")
    assert rows[:2] == kept, "steps before the checkpoint are not trained again"
    assert rows[2]["policy/lr"] < rows[1]["policy/lr"] < rows[0]["policy/lr"], "the schedule continues"
    head, exported = tensors(assets / "policy" / "mtp"), tensors(assets / "cut" / "final" / "mtp")
    assert all((head[name] == exported[name]).all() for name in head)
    for row in rows:
        assert_turns_and_rewards_are_the_agents(assets / "cut", row)


def assert_turns_and_rewards_are_the_agents(out: Path, row: dict[str, float]) -> None:
    """Responses of several turns with the agent's words between them, rewarded for what the policy said itself."""
    from byte_tokenizer import build

    tokenizer, responses = build(), read_rollouts(out, row["step"])
    turns = [len(each.sampled) for each in responses]
    assert max(turns) == rl_modes.TURNS
    assert np.mean(turns) > 2
    for each in responses:
        said = "".join(tokenizer.decode(each.ids[start:end]) for start, end in each.sampled)
        digits = sum(letter in "0123456789" for letter in said)
        assert each.reward == pytest.approx(rl_modes.PER_DIGIT * digits, abs=1e-6)
        for (_, ended), (starts, _) in pairwise(each.sampled):
            assert each.ids[ended - 1] in (1, *rl_modes.ENDS)
            assert tokenizer.decode(each.ids[ended:starts]) == "go on:"


def test_muon_trains_until_a_reward_function_raises_which_stops_the_run_and_is_shown(assets: Path) -> None:
    (assets / "raising.py").write_text(rl_modes.RAISING_REWARD.format(good_calls=2 * SAMPLES))
    rate, out = 0.02, assets / "bad"
    done = rl_jobs.run(
        assets,
        *("train", "job.yaml", "--out", "bad", "reward.remote_url=raising.py", "eval.dataset=null"),
        *("actor.optim=muon", f"actor.muon.lr={rate}", "actor.max_norm=0", "actor.lr_scheduler=constant"),
        *(ONE_UPDATE, "ckpt.save_steps=1"),
    )
    assert done.code == 2 or done.code == 1, done.output[-2000:]
    assert "gold answer of" in " ".join(done.output.split())
    assert done.leftovers == []
    sound_rows(out, steps=2)
    before, after = (rl_modes.saved(out, ACTOR, step) for step in (1, 2))
    for name, weight in before.items():
        update = (after[name].double() - weight.double()).numpy()
        if name.endswith("proj.weight"):
            rows, columns = update.shape
            largest = np.linalg.svd(update, compute_uv=False)[0] / rate / max(1, rows / columns) ** 0.5
            assert 0.5 < largest < 1.6, f"{name}: Muon's updates are nearly orthogonal"
        else:
            assert np.abs(update).max() < 0.01, f"{name}: a step of Adam's is about its learning rate"
            assert update.any() or "embed" not in name, "Adam trains the embedding"
