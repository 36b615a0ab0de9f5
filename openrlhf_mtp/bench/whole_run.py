"""A whole RL run with a head beside the same job without one: seconds of each part of a step, and the rewards."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from openrlhf_mtp.analysis.regression import mean_of
from openrlhf_mtp.analysis.summary import OTHER, row_parts
from openrlhf_mtp.bench.everything import Run, run_command
from openrlhf_mtp.bench.ratios import Ratio
from openrlhf_mtp.bench.report import publish, table
from openrlhf_mtp.bench.whole_run_figure import draw
from openrlhf_mtp.config.run_files import METRICS
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.rows import Row, read_rows
from openrlhf_mtp.runlog.run_folder import writable

RESULT, FIGURE = "bench_run.json", "bench_run.png"
NONE, HEAD = "none", "head"
ARMS: dict[str, tuple[str, ...]] = {NONE: ("mtp=null",), HEAD: ()}
"""Arm -> what it changes of the job. Without a head the run is OpenRLHF's own."""

STEP, EVALUATION = "step", "evaluation"
STACKED = ("rollout", "experience", "training", "sync", OTHER)
TOKEN = "rollout, ms a token"
PARTS = (*STACKED, STEP, TOKEN)
SMOOTHED = 3
"""Steps over which a reward is averaged before it counts as reached."""

Figures = dict[str, Any]
Measured = dict[str, list[Figures]]
"""Arm -> the figures of its run in each turn."""


def bench_run(
    job: Path,
    overrides: Sequence[str],
    out: Path,
    *,
    turns: int,
    reward: float | None = None,
    run: Run = run_command,
) -> int:
    """Run the job with and without its head in turns, print the tables, and write `bench_run.json` and a figure.

    Turn n takes n as the seed of both arms, so that they draw the same prompts in the same order. Every other turn
    goes backwards, so that no arm always inherits the machine from the other.

    Args:
        job: the job file, with an `mtp:` section.
        overrides: settings of both arms.
        out: folder of the result and, by turn and arm, of the runs.
        turns: runs of each arm.
        reward: the reward whose first crossing is timed, if any.
        run: runs a command.

    Returns:
        0, or the exit code of the first run that failed; nothing is written then.
    """
    writable(out)
    measured: Measured = {arm: [] for arm in ARMS}
    for turn in range(1, turns + 1):
        for arm in list(ARMS)[:: 1 if turn % 2 else -1]:
            folder = out / f"turn_{turn}" / arm
            print(f"turn {turn} of {turns}, {arm}: {folder}", file=sys.stderr, flush=True)
            words = ["train", str(job), *overrides, *ARMS[arm], f"train.seed={turn}", "--out", str(folder)]
            code = run([*words, "--overwrite"])
            if code != 0:
                print(f"{folder}: exit code {code}; its messages are above", file=sys.stderr)
                return code
            measured[arm].append(figures(read_rows(folder / METRICS)[0], reward))
    record = to_record(measured, job, overrides, reward)
    publish(out, RESULT, record, render(record))
    draw(measured, STACKED, reward).savefig(out / FIGURE)
    print(f"figure: {out / FIGURE}")
    return 0


def figures(rows: Sequence[Row], reward: float | None) -> Figures:
    """The figures of one run that are compared.

    Returns:
        `parts`: seconds of a step by part, evaluations left out, mean over the steps, and milliseconds of rollouts for
        a token; `elapsed`, `rewards`: by step; `reached`: seconds until the mean reward of `SMOOTHED` steps was first
        at least `reward`, None if it never was; `first`: the first step's reward and its error.
    """
    steps = [row for row in rows if row[metrics.STEP] > 0]
    each = [_parts(row) for row in steps]
    parts = {part: float(np.mean([seconds[part] for seconds in each])) for part in (*STACKED, STEP)}
    tokens = sum(row[metrics.PERF_ROLLOUT_TOKENS] for row in steps)
    rewards = [row[metrics.POLICY_REWARD] for row in steps]
    elapsed = np.cumsum([seconds[STEP] for seconds in each]).tolist()
    return {
        "parts": {**parts, TOKEN: 1000 * parts["rollout"] * len(steps) / tokens},
        "elapsed": elapsed,
        "rewards": rewards,
        "reached": None if reward is None else _reached(rewards, elapsed, reward),
        "first": _first(steps[0]),
    }


def _parts(row: Row) -> dict[str, float]:
    parts = row_parts(row)
    evaluation = row.get(metrics.TIME_EVAL_S, 0.0)
    step = row[metrics.TIME_STEP_S] - evaluation
    return {**parts, OTHER: max(0.0, parts[OTHER] - evaluation), STEP: step}


def _reached(rewards: Sequence[float], elapsed: Sequence[float], reward: float) -> float | None:
    for last in range(SMOOTHED, len(rewards) + 1):
        if np.mean(rewards[last - SMOOTHED : last]) >= reward:
            return elapsed[last - 1]
    return None


def _first(row: Row) -> dict[str, float]:
    """Mean reward of the first step and its standard error: both arms sample it from the same policy."""
    responses = row[metrics.PERF_ROLLOUT_TOKENS] / row[metrics.POLICY_RESPONSE_LENGTH]
    return {
        "reward": row[metrics.POLICY_REWARD],
        "error": row[metrics.POLICY_REWARD_STD] / math.sqrt(responses),
    }


def to_record(
    measured: Measured, job: Path, overrides: Sequence[str], reward: float | None
) -> dict[str, Any]:
    """The result as plain values: every run's figures, ratios of the arms by turn, and how far rewards differ."""
    ratios = {part: _ratio(measured, part) for part in PARTS}
    return {
        "job": str(job),
        "overrides": list(overrides),
        "reward": reward,
        "arms": measured,
        "head_over_none": {part: ratio for part, ratio in ratios.items() if ratio is not None},
        "reward_difference": _reward_difference(measured),
        "first_step_z": _first_step_z(measured),
    }


def _ratio(measured: Measured, part: str) -> dict[str, float] | None:
    """Head over none, turn by turn; None where a run has no such part."""
    with_head, without = ([run["parts"][part] for run in measured[arm]] for arm in (HEAD, NONE))
    if min(without) <= 0:
        return None
    ratio = Ratio.by_turn(with_head, without)
    return {"median": ratio.middle, "low": ratio.low, "high": ratio.high}


def _reward_difference(measured: Measured) -> dict[str, float]:
    """Mean reward over a run, head less none, with the 95 % interval over turns; NaN with one turn."""
    differences = [
        float(np.mean(head["rewards"]) - np.mean(none["rewards"]))
        for head, none in zip(measured[HEAD], measured[NONE], strict=True)
    ]
    mean = mean_of(differences)
    assert mean is not None, "a run without a finite reward"
    return {"mean": mean.value, "half_width": mean.half_width}


def _first_step_z(measured: Measured) -> float:
    """First steps' rewards, head less none, over the standard error of the difference, all turns together.

    Rejection sampling leaves the policy's distribution as it is, so this is one draw of a standard normal.
    """
    heads, nones = ([run["first"] for run in measured[arm]] for arm in (HEAD, NONE))
    difference = sum(run["reward"] for run in heads) - sum(run["reward"] for run in nones)
    variance = sum(run["error"] ** 2 for run in [*heads, *nones])
    return difference / math.sqrt(variance) if variance > 0 else math.nan


def render(record: Mapping[str, Any]) -> list[Table]:
    """Seconds by part, and below them what the rewards did."""
    arms, ratios = record["arms"], record["head_over_none"]
    turns = len(arms[HEAD])
    rows = []
    for part in PARTS:
        seconds = [float(np.median([run["parts"][part] for run in arms[arm]])) for arm in ARMS]
        rows.append((part, *(f"{one:.2f}" for one in seconds), *_change(ratios.get(part))))
    return [
        table(
            f"{record['job']}: {turns} turn(s) of {len(arms[HEAD][0]['rewards'])} steps",
            "Seconds of a step, mean over steps, median of turns; evaluations left out. Change:\n"
            "head over none, turn by turn; range: its extremes.\n" + _says_of_rewards(record),
            ("form", NONE, HEAD, "change", "range, %"),
            rows,
            min_width=79,
        )
    ]


def _change(ratio: Mapping[str, float] | None) -> tuple[str, str]:
    if ratio is None:
        return ("–", "–")
    percent = [f"{100 * (ratio[part] - 1):+.1f}" for part in ("median", "low", "high")]
    return (f"{percent[0]} %", f"{percent[1]} to {percent[2]}")


def _says_of_rewards(record: Mapping[str, Any]) -> str:
    difference = record["reward_difference"]
    interval = (
        "one turn, so no interval"
        if math.isnan(difference["half_width"])
        else f"95 % interval ±{difference['half_width']:.3f} over turns"
    )
    lines = [
        f"Mean reward, head less none: {difference['mean']:+.3f} ({interval}).",
        f"First step, same policy: z = {record['first_step_z']:.2f} of the difference.",
    ]
    if record["reward"] is not None:
        times = {arm: [run["reached"] for run in runs] for arm, runs in record["arms"].items()}
        shown = (
            f"{arm} {', '.join('never' if one is None else f'{one:.0f} s' for one in each)}"
            for arm, each in times.items()
        )
        lines.append(f"Reward {record['reward']:g} reached after: {'; '.join(shown)}.")
    return "\n".join(lines)
