"""The settings under which the joint term is checked: regimes, and what of OpenRLHF is switched on beside them."""

from __future__ import annotations

from typing import Any

DEPTHS = 3
JOINT = {"regime": "joint_policy", "depths": DEPTHS, "coefficient": {"value": 0.7}}
OCC = {"regime": "joint_policy", "depths": DEPTHS, "coefficient": {"kind": "occ"}}
MOVING = {"actor__max_norm": 1.0, "actor__adam__lr": 3e-3}
"""Large steps, so that log-probs have moved by the second update."""

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "policy loss": (JOINT, {}),
    "policy loss, temperature": (JOINT, {"rollout__temperature": 0.7}),
    "cross-entropy": (JOINT | {"regime": "joint_ce"}, {}),
    "cross-entropy, half of the anchors": (JOINT | {"regime": "joint_ce", "anchor_fraction": 0.5}, {}),
    "cross-entropy, dynamic batches": (
        JOINT | {"regime": "joint_ce"},
        {"train__dynamic_batch_enable": True, "train__max_tokens_per_gpu": 96},
    ),
    "cross-entropy, advantages": (
        JOINT | {"regime": "joint_ce", "objective": "e2e_tv", "advantage": {"weighting": "sigmoid"}},
        {},
    ),
    "occ": (OCC, {}),
    "occ, entropy bonus": (OCC, {"actor__entropy_coef": 0.01}),
    "occ, KL loss": (OCC, {"algo__kl__use_loss": True, "algo__kl__init_coef": 0.1}),
    "occ, dual clip": (OCC, {"actor__dual_clip": 3.0}),
    "occ, importance sampling": (
        OCC,
        {
            "algo__advantage__is_correction_level": "token",
            "algo__advantage__is_correction_threshold": [0.7, 1.4],
        },
    ),
    "occ, GSPO": (OCC, {"actor__policy_loss_type": "gspo"}),
    "occ, dynamic batches": (OCC, {"train__dynamic_batch_enable": True, "train__max_tokens_per_gpu": 96}),
    "occ, one micro-batch a step": (OCC, {"train__micro_batch_size": 8}),
    "occ, adapters": (OCC, {"ds__lora__rank": 4, "ds__lora__alpha": 64}),
    "occ, half of the anchors": (OCC | {"anchor_fraction": 0.5}, {}),
    "occ, released code": (
        {**OCC, "coefficient": {"kind": "occ", "occ_variant": "released_code"}},
        {"train__micro_batch_size": 8},
    ),
}

NIGHTLY = {
    "occ, entropy bonus",
    "occ, KL loss",
    "occ, dual clip",
    "occ, GSPO",
    "occ, adapters",
    "occ, half of the anchors",
}
"""Losses of OpenRLHF's that go through the same lines as the others; each of these combinations costs 3 s."""
