"""OpenRLHF's status dictionary in this project's metric names. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openrlhf_mtp.runlog import metrics

STATUS_NAMES: dict[str, str] = {
    "rollout/reward_mean": metrics.POLICY_REWARD,
    "rollout/reward_std": metrics.POLICY_REWARD_STD,
    "rollout/response_length_mean": metrics.POLICY_RESPONSE_LENGTH,
    "rollout/truncated_rate": metrics.POLICY_TRUNCATED_RATE,
    "total_length": metrics.POLICY_TOTAL_LENGTH,
    "return": metrics.POLICY_RETURN,
    "policy_loss": metrics.POLICY_LOSS,
    "entropy_loss": metrics.POLICY_ENTROPY,
    "kl": metrics.POLICY_KL,
    "ppo_kl": metrics.POLICY_PPO_KL,
    "ppo_clip_ratio": metrics.POLICY_CLIP_FRACTION,
    "actor_grad_norm": metrics.POLICY_GRAD_NORM,
    "actor_lr": metrics.POLICY_LR,
    "critic_loss": metrics.CRITIC_LOSS,
    "values": metrics.CRITIC_VALUE,
    "critic_lr": metrics.CRITIC_LR,
    "critic_grad_norm": metrics.CRITIC_GRAD_NORM,
    "timing/generation": metrics.TIME_ROLLOUT_S,
    "timing/make_experience": metrics.TIME_EXPERIENCE_S,
    "timing/ppo_train": metrics.TIME_TRAIN_S,
    "timing/broadcast": metrics.TIME_SYNC_S,
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
    row[metrics.TIME_STEP_S] = step_seconds
    if metrics.POLICY_ENTROPY not in row and metrics.MTP_ENTROPY in row:
        # OpenRLHF measures entropy only with actor.entropy_coef set; the head's loss knows it anyway
        row[metrics.POLICY_ENTROPY] = row[metrics.MTP_ENTROPY]
    metrics.validate(row)
    return row


def evaluation_row(logs: Mapping[str, float]) -> dict[str, float]:
    """The metrics of one evaluation, averaged over data sources as OpenRLHF names them (`eval_{source}_pass1`)."""
    row: dict[str, float] = {}
    passes = {name: match[1] for name in logs if (match := _PASS_AT.search(name))}
    accuracy = [logs[name] for name, samples in passes.items() if samples == "1"]
    if accuracy:
        row[metrics.EVAL_ACCURACY] = sum(accuracy) / len(accuracy)
    pass_at_k = [logs[name] for name, samples in passes.items() if samples != "1"]
    if pass_at_k:
        row[metrics.EVAL_PASS_AT_K] = sum(pass_at_k) / len(pass_at_k)
    if "eval_truncated_rate" in logs:
        row[metrics.EVAL_TRUNCATED_RATE] = logs["eval_truncated_rate"]
    if "eval_response_length_mean" in logs:
        row[metrics.EVAL_RESPONSE_LENGTH] = logs["eval_response_length_mean"]
    metrics.validate(row)
    return row
