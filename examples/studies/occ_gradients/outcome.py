"""The records of all checkpoints in numbers: is the proxy one, does a coefficient gain, and is a second stage due?"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from harness.contrasts import LEVEL, compare_all
from harness.study import Values

from occ_gradients.checkpoints import Checkpoint
from occ_gradients.contrasts import (
    CHANGE,
    COEFFICIENTS,
    GAINS,
    KINDS,
    PRIMARY_PROXY,
    PROXIES,
    SMALLEST_CORRELATION,
    arm,
)
from occ_gradients.correlation import Correlation, same_sign, spearman, without_stage
from occ_gradients.estimators import vertex
from occ_gradients.page import figure, table
from occ_gradients.records import write_record
from openrlhf_mtp.runlog.provenance import git_revision, installed_versions

LEAST_HALVES = 1.0 / 3.0
"""Correlation of ρ's two halves at which both together have a reliability of 0.5, by Spearman and Brown."""

Records = Mapping[Checkpoint, Mapping[str, Any]]


def collect(records: Records, missing: Sequence[str]) -> dict[str, Any]:
    """The result of the checkpoints that were measured."""
    found = follow(records)
    gains = compare_all(GAINS, by_arm(records))
    due, reason = second_stage(found["verdict"], gains)
    return {
        "study": "occ_gradients",
        "date": time.strftime("%Y-%m-%d"),
        "git": git_revision(),
        "versions": installed_versions(),
        "missing": list(missing),
        "proxies": found,
        "gains": gains,
        "theory": theory(records),
        "second_stage": {"due": due, "reason": reason},
        "checkpoints": {
            checkpoint.name: {"policy": checkpoint.path.policy, "updates": checkpoint.updates, **record}
            for checkpoint, record in records.items()
        },
    }


def follow(records: Records) -> dict[str, Any]:
    """Each proxy against ρ over the checkpoints, and the verdict on the primary one."""
    true = [record["alignment"]["ratio"] for record in records.values()]
    stages = [checkpoint.updates for checkpoint in records]
    policies = sorted({checkpoint.path.policy for checkpoint in records})
    halves = spearman(
        *([record["alignment"][name] for record in records.values()] for name in ("ratio_even", "ratio_odd"))
    )
    found: dict[str, Any] = {"halves": asdict(halves)}
    for name in PROXIES:
        values = [record["proxies"][name] for record in records.values()]
        within = {
            str(policy): asdict(spearman(*_of_policy(records, policy, values, true))) for policy in policies
        }
        found[name] = {
            **asdict(spearman(values, true)),
            "within_policy": within,
            "without_stage": asdict(spearman(without_stage(values, stages), without_stage(true, stages))),
            "same_sign": same_sign(values, true),
            "mean": float(np.mean(values)),
        }
    primary = found[PRIMARY_PROXY]
    each = [value["value"] for value in primary["within_policy"].values()]
    whole = Correlation(**{name: primary[name] for name in Correlation.__dataclass_fields__})
    return {**found, "verdict": verdict(whole, each, halves.value)}


def _of_policy(records: Records, policy: int, *columns: Sequence[float]) -> list[list[float]]:
    own = [checkpoint.path.policy == policy for checkpoint in records]
    return [[value for value, is_own in zip(column, own, strict=True) if is_own] for column in columns]


def verdict(whole: Correlation, within: Sequence[float], halves: float) -> str:
    """Whether the proxy is one: the table of plan.md, from its top.

    Args:
        whole: the primary proxy and ρ over all checkpoints.
        within: the same within each base policy.
        halves: correlation of ρ's two halves.
    """
    if not math.isfinite(whole.value):
        return "undecided"
    if whole.p < LEVEL and whole.value > 0.0 and all(value > 0.0 for value in within):
        return "one"
    if not halves >= LEAST_HALVES:
        return "not measurable"
    return "none" if whole.high < SMALLEST_CORRELATION else "undecided"


def by_arm(records: Records) -> dict[str, list[Values]]:
    """By kind of step and coefficient, the mean change over each path's checkpoints, in the order of the paths."""
    paths = sorted({checkpoint.path for checkpoint in records}, key=lambda path: path.seed)
    return {
        arm(kind, coefficient): [
            {CHANGE.name: _mean(records, kind, coefficient, path.seed)} for path in paths
        ]
        for kind in KINDS
        for coefficient in COEFFICIENTS
        if paths
    }


def _mean(
    records: Records, kind: str, coefficient: float, seed: int | None = None, name: str = "change"
) -> float:
    """Mean over the checkpoints of one path, or of all."""
    return float(
        np.mean(
            [
                record["steps"][kind][f"{coefficient:g}"][name]
                for checkpoint, record in records.items()
                if seed in (None, checkpoint.path.seed)
            ]
        )
    )


def theory(records: Records) -> dict[str, Any]:
    """Means over checkpoints: ΔJ and its prediction by λ, the best constant λ, and the λ₊ that it takes.

    `ratio` is ρ of the mean product and the mean squared norm, which a single noisy checkpoint does not decide.
    """
    if not records:
        return {}
    norms = [record["alignment"] for record in records.values()]
    product, norm = (float(np.mean([each[name] for each in norms])) for name in ("product", "mtp_norm"))
    ratio = product / norm if norm > 0.0 else math.nan
    changes = {kind: {f"{c:g}": _mean(records, kind, c) for c in COEFFICIENTS} for kind in KINDS}
    predicted = {
        kind: {f"{c:g}": _mean(records, kind, c, None, "predicted") for c in COEFFICIENTS} for kind in KINDS
    }
    best = vertex(*(changes["gradient"][name] for name in ("-1", "0", "1")))
    return {
        "ratio": ratio,
        "change": changes,
        "predicted": predicted,
        "best_constant": best,
        "scale": best / ratio if ratio else math.nan,
        "mtp_over_rl_norm": _mean_of([_root(each["mtp_norm"]) / _root(each["rl_norm"]) for each in norms]),
    }


def _mean_of(values: Sequence[float]) -> float:
    """Mean of the finite ones, if there are any."""
    kept = [value for value in values if math.isfinite(value)]
    return float(np.mean(kept)) if kept else math.nan


def _root(square: float) -> float:
    """Of an estimate of a square, which noise may take below 0."""
    return math.sqrt(square) if square > 0.0 else math.nan


def second_stage(proxy: str, gains: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Whether rewards of runs could show something, by the rule of plan.md."""
    if proxy == "one":
        return True, "the proxy follows the true ratio"
    gaining = [each["arm"] for each in gains if _gains(each)]
    if gaining:
        return True, f"a coefficient gains: {', '.join(gaining)}"
    return False, "neither is the proxy one, nor does any coefficient above 0 gain"


def _gains(each: Mapping[str, Any]) -> bool:
    is_positive = float(each["arm"].split()[-1]) > 0.0
    return bool(is_positive and each["low"] is not None and each["low"] > 0.0 and each["p_holm"] < LEVEL)


def write_result(records: Records, missing: Sequence[str], out: Path) -> dict[str, Any]:
    """Collect, and write `result.json`, `result.md` and `result.png` into `out`."""
    result = collect(records, missing)
    out.mkdir(parents=True, exist_ok=True)
    write_record(out / "result.json", result)
    (out / "result.md").write_text(table(result), encoding="utf-8")
    if records:
        figure(result).savefig(out / "result.png")
    return result
