"""Points and rewards in numbers, and the study's result."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from harness import plots
from harness.contrasts import arm_lines, compare_all, contrast_lines
from harness.statistics import interval
from harness.study import Column, Values
from matplotlib.figure import Figure

from openrlhf_mtp.runlog.provenance import git_revision, installed_versions
from rollout_time.arms import ARMS, CLAIM, CONTRASTS, NONE, ONLINE, REWARD, SECONDS, STEP, TO_REWARD
from rollout_time.points import Point

QUESTION = "How much shorter is a rollout of RL, with its tail, if a head trained during RL drafts?"
COLUMNS = (
    Column(SECONDS, "s, whole rollout", 2),
    Column("seconds_per_token", "s for each token", 5),
    Column("completion_p50", "s to 50 %", 2),
    Column("completion_p95", "s to 95 %", 2),
    Column("tail_seconds", "s of the tail", 2),
    Column("tail_share", "share of the tail", 2),
    Column("tokens_per_forward", "tokens for each forward", 3),
    Column("tokens_per_forward_before_end", "before an end token", 3),
    Column("acceptance_rate", "accepted", 3),
    Column("share_after_end", "text after an end token", 3),
    Column(TO_REWARD, "rollout s to the reward", 1),
    Column(STEP, "s, step with the run's other parts", 2),
    Column(REWARD, "reward, held out", 4),
)
WINDOW = 10
SHARE_OF_GAIN, LEAST_GAIN = 0.8, 0.02


def crossing(rewards: Sequence[float]) -> int | None:
    """The first step (from 1) whose mean reward over `WINDOW` steps has `SHARE_OF_GAIN` of the path's gain.

    None where the path gains less than `LEAST_GAIN`, or is shorter than two windows.

    >>> crossing([0.0] * 10 + [1.0] * 20)
    18
    """
    if len(rewards) < 2 * WINDOW:
        return None
    smooth = [fmean(rewards[max(0, at + 1 - WINDOW) : at + 1]) for at in range(len(rewards))]
    start, end = smooth[WINDOW - 1], smooth[-1]
    if end - start < LEAST_GAIN:
        return None
    wanted = start + SHARE_OF_GAIN * (end - start)
    return next(at + 1 for at in range(WINDOW - 1, len(smooth)) if smooth[at] >= wanted)


def seconds_to(step: int, measured: Mapping[int, float]) -> float:
    """Seconds of all rollouts up to a step, between measured steps by interpolation, beyond them as the nearest.

    >>> seconds_to(3, {1: 2.0, 3: 4.0})
    9.0
    """
    steps = sorted(measured)
    return float(np.interp(range(1, step + 1), steps, [measured[at] for at in steps]).sum())


def values_of(
    points: Sequence[tuple[Point, Mapping[str, Any]]],
    rewards: Mapping[str, Sequence[float]] | None,
    path_rewards: Sequence[float],
    other: float | None = None,
) -> dict[str, Values]:
    """One pair: by arm the mean over its points of each figure's median, and what the path makes of them.

    Args:
        points: with the record of each.
        rewards: of held-out responses by arm, where measured.
        path_rewards: of the recorded run by step.
        other: seconds of a step of that run besides its rollout, where they are this policy's.
    """
    arms = set.intersection(*(set(record["arms"]) for _, record in points))
    step = crossing(path_rewards)
    values: dict[str, Values] = {}
    for arm in (arm for arm in ARMS if arm in arms):
        medians = [record["arms"][arm]["median"] for _, record in points]
        shared = set.intersection(*(set(median) for median in medians))
        values[arm] = {name: fmean(median[name] for median in medians) for name in sorted(shared)}
        if step is not None:
            seconds = {
                point.step: median[SECONDS] for (point, _), median in zip(points, medians, strict=True)
            }
            values[arm][TO_REWARD] = seconds_to(step, seconds)
        if other is not None:
            values[arm][STEP] = values[arm][SECONDS] + other
        if rewards is not None and arm in rewards:
            values[arm][REWARD] = fmean(rewards[arm])
    return values


def collect(
    subject: str, pairs: Mapping[str, Mapping[str, Values]], missing: Sequence[str]
) -> dict[str, Any]:
    """The result of a subject.

    Args:
        subject: its name.
        pairs: pair -> arm -> values.
        missing: points that were not measured.
    """
    arms = [arm for arm in next(iter(pairs.values()), {}) if all(arm in pair for pair in pairs.values())]
    by_arm = {arm: _alike([pair[arm] for pair in pairs.values()]) for arm in arms}
    contrasts = compare_all(CONTRASTS, by_arm)
    primary = next((each for each in contrasts if each["role"] == "primary"), None)
    return {
        "study": "rollout_time",
        "subject": subject,
        "question": QUESTION,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu_cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **installed_versions()},
        "git": git_revision(),
        "pairs": list(pairs),
        "missing": list(missing),
        "runs": by_arm,
        "summary": {
            arm: {name: asdict(interval([run[name] for run in runs])) for name in runs[0]}
            for arm, runs in by_arm.items()
        },
        "contrasts": contrasts,
        "claim": None if primary is None else claim(primary),
    }


def _alike(runs: Sequence[Values]) -> list[Values]:
    """The figures that every pair has."""
    shared = set.intersection(*(set(run) for run in runs))
    return [{name: run[name] for name in sorted(shared)} for run in runs]


def claim(primary: Mapping[str, Any]) -> str:
    """What the primary contrast says about MTP-RL's figure."""
    if primary["high"] is None:
        return "one pair: no interval"
    if primary["high"] < CLAIM:
        return f"repeats MTP-RL's: the interval lies below {CLAIM}"
    if primary["high"] < 1.0:
        return f"a gain; not shown to be as large as MTP-RL's smallest ({CLAIM})"
    return "no gain shown"


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"# {result['question']}",
        "",
        f"Subject `{result['subject']}`, {len(result['pairs'])} pairs; mean and 95 % interval over them (Student's t). "
        f"{result['machine']['cpu_cores']} CPU cores. {result['date']}.",
        "",
        *arm_lines(result["summary"], COLUMNS),
    ]
    if result["missing"]:
        lines += ["", f"Not measured: {', '.join(result['missing'])}."]
    if result["contrasts"]:
        # ratios need two digits more than the seconds of which they are
        columns = {each.name: Column(each.name, each.heading, max(3, each.digits)) for each in COLUMNS}
        lines += [
            "",
            *contrast_lines(result["contrasts"], columns),
            "",
            f"Primary contrast: {result['claim']}.",
        ]
    return "\n".join(lines) + "\n"


def figure(result: Mapping[str, Any]) -> Figure:
    """Seconds of whole rollouts and of their tails, by arm."""
    panels = {
        "whole rollout (s)": [(SECONDS, "all"), ("completion_p50", "50 %"), ("completion_p95", "95 %")],
        "tokens for each forward": [("tokens_per_forward", "all text")],
    }
    return plots.groups(result["runs"], panels)


def write_result(result: Mapping[str, Any], out: Path) -> None:
    """Write `result_SUBJECT.json`, `.md` and `.png` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    base = out / f"result_{result['subject']}"
    base.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    base.with_suffix(".md").write_text(table(result), encoding="utf-8")
    if {NONE, ONLINE} <= result["runs"].keys():
        figure(result).savefig(base.with_suffix(".png"))
