"""What must hold before an engine starts: the sampling distribution stays the policy's, and the head fits the policy.

Pure functions over settings and `config.json` files; nothing here imports vLLM or torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.errors import JobError, JobErrors
from openrlhf_mtp.config.mtp import MTPSettings

DRAFT_ARCHITECTURE = "EagleMTPDraft"
_SHARED_FIELDS = ("hidden_size", "vocab_size")


def sampling_refusals(mtp: MTPSettings) -> list[str]:
    """Settings under which rollouts would no longer be samples of the policy, or would waste the head."""
    rollout = mtp.rollout
    problems = []
    if rollout.rejection_sample_method == "synthetic":
        problems.append(
            "mtp.rollout.rejection_sample_method: got synthetic, expected standard, because synthetic accepts "
            "drafts at a fixed rate whatever the policy says, so that rollouts are not samples of the policy"
        )
    if rollout.rejection_sample_method == "block" and rollout.draft_sample_method == "probabilistic":
        problems.append(
            "mtp.rollout.rejection_sample_method: got block with draft_sample_method probabilistic, expected standard, "
            "because vLLM's V1 model runner then drafts greedily without saying so"
        )
    return problems


def sampling_warnings(mtp: MTPSettings) -> list[str]:
    """Settings that keep the distribution and lose speed."""
    if mtp.rollout.draft_sample_method == "greedy" and mtp.wants_sampled_drafts:
        return [
            f"mtp.rollout.draft_sample_method is greedy and mtp.objective is {mtp.objective_text}: a head trained for "
            "the overlap of two distributions gains nothing from greedy drafts, whose acceptance is the policy's own "
            "probability of one token. Set draft_sample_method: probabilistic."
        ]
    return []


def _read_config(folder: Path, what: str) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise JobError(
            f"{what}: {path} does not exist; run `openrlhf-mtp equip` to add a head to a checkpoint, or point "
            "actor.model_name_or_path and mtp.head at folders that exist"
        )
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def head_mismatches(policy: dict[str, Any], head: dict[str, Any], mtp: MTPSettings) -> list[str]:
    """Differences between a policy's and a head's `config.json` that forbid drafting, one line each."""
    if head.get("architectures") != [DRAFT_ARCHITECTURE] or "mtp" not in head:
        return [
            f"architectures: the head's config has {head.get('architectures')}, expected [{DRAFT_ARCHITECTURE!r}] and "
            "an mtp section; this folder is not a head written by `openrlhf-mtp equip`"
        ]
    section = head["mtp"]
    problems = [
        f"{field}: the policy has {policy.get(field)}, the head {head.get(field)}"
        for field in _SHARED_FIELDS
        if policy.get(field) != head.get(field)
    ]
    if section["trunk_model_type"] != policy["model_type"]:
        problems.append(
            f"model family: the policy is {policy['model_type']}, the head was made for {section['trunk_model_type']}"
        )
    if section["num_layers"] != mtp.num_layers:
        problems.append(f"num_layers: the job has {mtp.num_layers}, the head {section['num_layers']} blocks")
    return problems


def require_head_fits(policy_dir: Path, head_dir: Path, mtp: MTPSettings) -> None:
    """Refuse a head that was made for another model, before any process is started.

    Raises:
        JobErrors: every mismatch with both values.
        JobError: one of the folders has no `config.json`.
    """
    policy = _read_config(policy_dir, "the policy")
    problems = head_mismatches(policy, _read_config(head_dir, "the MTP head"), mtp)
    if problems:
        raise JobErrors(f"the head in {head_dir} does not fit the policy in {policy_dir}:", problems)


def require_lossless(mtp: MTPSettings) -> None:
    """Refuse settings under which speculative rollouts would not follow the policy's distribution.

    Raises:
        JobErrors: every such setting.
    """
    problems = sampling_refusals(mtp)
    if problems:
        raise JobErrors("speculative rollouts would not follow the policy:", problems)
