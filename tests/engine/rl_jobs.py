"""A tiny policy, its head, prompts and a reward that leaves a trace; the command line run on them as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import yaml

from tests.patience import seconds

REWARD = """
import os

def reward_func(queries, prompts, labels, **_):
    import torch

    with open(os.path.join(os.path.dirname(__file__), "reward_calls"), "a") as trace:
        trace.write("x" * len(queries))
    digits = [sum(c.isdigit() for c in q[len(p):]) / max(1, len(q) - len(p)) for q, p in zip(queries, prompts)]
    rewards = torch.tensor(digits)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}
"""

JOB: dict[str, Any] = {
    "actor": {"model_name_or_path": "policy", "num_nodes": 1, "num_gpus_per_node": 1, "adam": {"lr": 3e-4}},
    "data": {"prompt_dataset": "train.jsonl", "input_key": "input", "label_key": "label", "max_len": 96},
    "eval": {"dataset": "eval.jsonl", "n_samples_per_prompt": 2, "temperature": 1.0},
    "reward": {"remote_url": "reward.py"},
    "rollout": {"batch_size": 8, "n_samples_per_prompt": 4, "micro_batch_size": 16, "max_new_tokens": 24},
    "train": {"batch_size": 16, "micro_batch_size": 8},
    "algo": {"advantage": {"estimator": "group_norm"}, "kl": {"init_coef": 0.0}},
    "ds": {"zero_stage": 2, "attn_implementation": "sdpa"},
    "vllm": {"num_engines": 1, "enforce_eager": True, "gpu_memory_utilization": 0.1},
    "mtp": {
        "depths": 3,
        "rollout": {"kv_cache_gib": 0.25},
        "sync": {"timeout_s": seconds(60)},
        "pretrain": {
            "batch_size": 16,
            "micro_batch_size": 8,
            "epochs": 3,
            "samples_per_prompt": 2,
            "eval_steps": 3,
            "save_steps": 3,
            "holdout_fraction": 0.1,
        },
    },
}
PROMPTS, HELD_OUT = 24, 8
NOT_OURS = ("OMP_NUM_THREADS", "RAY_ADDRESS")
COMMAND = [sys.executable, "-m", "openrlhf_mtp.cli.main"]


@dataclass(frozen=True)
class Finished:
    """A command that ended: its exit code, what it printed, and the processes it left behind."""

    code: int
    output: str
    leftovers: list[str]


def write_assets(folder: Path) -> None:
    """Policy (random, Qwen2-shaped), head, prompts, rewards and the job file, all in `folder`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "arithmetic"))
    import byte_tokenizer

    from openrlhf_mtp.heads.formats.equip import equip

    torch.manual_seed(0)
    tokenizer = byte_tokenizer.build()
    config = Qwen2Config(
        vocab_size=320,
        hidden_size=128,  # vLLM's CPU attention wants heads of 32 or wider
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    equip(folder / "plain", folder / "policy", depths=3)
    for name, count in (("train.jsonl", PROMPTS), ("eval.jsonl", HELD_OUT)):
        rows = [{"input": f"{number}+{count}=", "label": str(number + count)} for number in range(count)]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB))


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start `openrlhf-mtp` in `folder` in a session of its own, so that its processes can be told from others."""
    # threads as the job chooses them, not as these tests do for themselves (tests/conftest.py)
    environment = {name: set_to for name, set_to in os.environ.items() if name not in NOT_OURS}
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *words: str, timeout_s: float = 600) -> Finished:
    """Run the command to its end and look for what it left behind; `timeout_s` is scaled to the machine."""
    process = start(folder, *words)
    try:
        output, _ = process.communicate(timeout=seconds(timeout_s))
    finally:
        process.kill()
    return Finished(process.returncode, output, processes_of_session(process.pid))


def kill_at(out: Path, checkpoint: str, *words: str) -> None:
    """Run the command in the parent of the run folder `out` and kill it once that checkpoint is there."""
    process = start(out.parent, *words)
    newest = out / "checkpoints" / "_actor" / "latest"
    end = time.monotonic() + seconds(600)
    while not (newest.exists() and newest.read_text() == checkpoint):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, f"{checkpoint} never came"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert processes_of_session(process.pid) == [], "a killed driver takes its cluster along"


def assert_agreement(rows: list[dict[str, float]]) -> None:
    """What the trainer promises is what the engine accepts.

    Within the noise of some 270 drafts a step, a standard error of 0.02, and what updates change while the trainer
    measures, 0.005: three such steps exceed the product's own limit once in 30,000 runs (noncentral chi-square), and
    the bound on their mean once in 10^8.
    """
    from openrlhf_mtp.runlog.agreement import disagreeing_steps

    assert disagreeing_steps(rows) == []
    assert abs(fmean(row["spec/alpha_gap"] for row in rows)) < 0.08


def processes_of_session(session: int, wait_s: float = 30.0) -> list[str]:
    """Command lines of processes that still run in a session, after giving them a moment to end."""
    end = time.monotonic() + seconds(wait_s)
    while True:
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "status"]):
            try:
                if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.info["cmdline"] or [])[:120])
            except (psutil.Error, ProcessLookupError):
                continue
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.5)


def rows(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
