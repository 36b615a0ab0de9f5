"""OpenRLHF's status dictionary in this project's metric names. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openrlhf_mtp.runlog import metrics

STATUS_NAMES: dict[str, str] = {
    "rollout/reward_mean": "policy/reward",
    "rollout/reward_std": "policy/reward_std",
    "rollout/response_length_mean": "policy/response_length",
    "rollout/truncated_rate": "policy/truncated_rate",
    "total_length": "policy/total_length",
    "return": "policy/return",
    "policy_loss": "policy/loss",
    "entropy_loss": "policy/entropy",
    "kl": "policy/kl",
    "ppo_kl": "policy/ppo_kl",
    "ppo_clip_ratio": "policy/clip_fraction",
    "actor_grad_norm": "policy/grad_norm",
    "actor_lr": "policy/lr",
    "critic_loss": "critic/loss",
    "values": "critic/value",
    "critic_lr": "critic/lr",
    "critic_grad_norm": "critic/grad_norm",
    "timing/generation": "time/rollout_s",
    "timing/make_experience": "time/experience_s",
    "timing/ppo_train": "time/train_s",
    "timing/broadcast": "time/sync_s",
}
"""OpenRLHF 0.11.2's key -> our metric. Keys that are not here stay in TensorBoard under OpenRLHF's own name."""

_PASS_AT = re.compile(r"_pass(\d+)$")
"""At the end of the name only: a data source may have "_pass" in its own."""

OWN_PREFIXES = ("mtp/", "occ/", "spec/", "sync/", "time/", "perf/", "policy/")


def step_row(status: Mapping[str, Any], *, step_seconds: float) -> dict[str, float]:
    """The row of one RL step.

    Args:
        status: what OpenRLHF would log, with our own metrics mixed in under their own names.
        step_seconds: wall time of the whole step.
    """
    row = {
        ours: float(status[theirs]) for theirs, ours in STATUS_NAMES.items() if status.get(theirs) is not None
    }
    row.update({name: float(value) for name, value in status.items() if name.startswith(OWN_PREFIXES)})
    row["time/step_s"] = step_seconds
    if "policy/entropy" not in row and "mtp/entropy" in row:
        # OpenRLHF measures entropy only with actor.entropy_coef set; the head's loss knows it anyway
        row["policy/entropy"] = row["mtp/entropy"]
    metrics.validate(row)
    return row


def evaluation_row(logs: Mapping[str, float]) -> dict[str, float]:
    """The metrics of one evaluation, averaged over data sources as OpenRLHF names them (`eval_{source}_pass1`)."""
    row: dict[str, float] = {}
    passes = {name: match[1] for name in logs if (match := _PASS_AT.search(name))}
    accuracy = [logs[name] for name, samples in passes.items() if samples == "1"]
    if accuracy:
        row["eval/accuracy"] = sum(accuracy) / len(accuracy)
    pass_at_k = [logs[name] for name, samples in passes.items() if samples != "1"]
    if pass_at_k:
        row["eval/pass_at_k"] = sum(pass_at_k) / len(pass_at_k)
    if "eval_response_length_mean" in logs:
        row["eval/response_length"] = logs["eval_response_length_mean"]
    metrics.validate(row)
    return row
