"""Arms on all paths in numbers, and the study's result."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from harness import plots
from harness.contrasts import arm_lines, compare_all, contrast_lines
from harness.curves import write_curves
from harness.statistics import interval
from harness.study import Column, Place, Values
from matplotlib.figure import Figure

from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.provenance import git_revision, installed_versions
from openrlhf_mtp.runlog.run import read_run
from replay import refit
from replay.arms import FAMILIES
from replay.learner import DEPTHS
from replay.recordings import Recording, drift, live_lengths
from replay.walk import DONE

QUESTION = "Does a head have to follow the policy during RL, when every head sees the same path?"
COLUMNS = (
    Column("length/early", "length, first third"),
    Column("length/late", "length, last third"),
    Column("length/growth", "growth"),
    Column("rate/late", "E/k, last third"),
    Column("length/at_refits", "length where refitted, last third"),
    Column("split/intrinsic", "change: a fresh head's"),
    Column("split/lag", "change: lag"),
)


def measure(place: Place, steps: int) -> Values:
    """Replayed acceptance length and E/k of an arm: means over the first and the last third of the path's steps.

    `at_refits` is over the last third's steps at which there is a refit, so that the bound and an arm are compared on
    the same text; the bound has nothing else. `split` is the change from the first refitted step to those: what a
    fresh head changes by is the text's (`intrinsic`), the rest is how much more the arm lags behind a fresh head.
    """
    by_step = _lengths(place.folder)
    values = _at_refits(place, by_step, steps)
    if place.arm == refit.NAME:
        return values
    third = max(1, steps // 3)
    series = [by_step[step] for step in sorted(by_step)]
    values["length/early"] = float(np.mean(series[:third]))
    values["length/late"] = float(np.mean(series[-third:]))
    values["length/growth"] = values["length/late"] - values["length/early"]
    values["rate/late"] = (values["length/late"] - 1.0) / DEPTHS
    return values


def _lengths(arm: Path) -> dict[int, float]:
    steps, lengths = read_run(arm).series(metrics.MTP_REPLAYED_LENGTH)
    return dict(zip(map(int, steps), lengths, strict=True))


def _at_refits(place: Place, by_step: Mapping[int, float], steps: int) -> Values:
    """An arm beside the bound of its path; nothing without a bound."""
    folder = place.folder.parent / refit.NAME
    if not (folder / DONE).exists():
        return {}
    bound = _lengths(folder)
    first, *others = sorted(bound)
    late = [step for step in others if step > steps - steps // 3]
    if not late:
        return {}
    (arm_late, bound_late) = (float(np.mean([of[step] for step in late])) for of in (by_step, bound))
    intrinsic = bound_late - bound[first]
    return {
        "length/at_refits": arm_late,
        "split/intrinsic": intrinsic,
        "split/lag": arm_late - by_step[first] - intrinsic,
    }


def agreement(run: Path, arm: Path) -> dict[str, float]:
    """The live head's acceptance length in the run, and the replay's of the same arm: means over the steps of both."""
    steps, replayed = read_run(arm).series(metrics.MTP_REPLAYED_LENGTH)
    here, live = dict(zip(map(int, steps), replayed, strict=True)), live_lengths(run)
    shared = sorted(here.keys() & live.keys())
    engine, trainer = (np.array([live[step][at] for step in shared]) for at in (0, 1))
    ours = np.array([here[step] for step in shared])
    error = (ours - engine).std(ddof=1) / np.sqrt(len(shared)) if len(shared) > 1 else float("nan")
    return {
        "steps": len(shared),
        "engine": float(engine.mean()),
        "replay": float(ours.mean()),
        "replay_minus_engine": float((ours - engine).mean()),
        "standard_error": float(error),
        "largest_replay_minus_trainer": float(np.abs(ours - trainer).max()),
    }


def live_arm(path: Recording) -> str:
    """The arm that a path's live head is."""
    return "frozen_e2e_tv" if path.live == "frozen" else "online_e2e_tv"


def path_facts(path: Recording, folder: Path) -> dict[str, Any]:
    """Regime, drift, entropy and reward of a path, and how its replay compares with the engine."""
    rows = drift(folder / "states")
    third = max(1, len(rows) // 3)
    facts: dict[str, Any] = {"regime": path.regime, "live": path.live, "steps": len(rows)}
    for name in ("entropy", "reward"):
        series = [row[name] for row in rows]
        facts[f"{name}_early"], facts[f"{name}_late"] = (
            round(float(np.mean(part)), 4) for part in (series[:third], series[-third:])
        )
    facts["kl_step_median"] = float(np.median([row["kl_step"] for row in rows]))
    facts["kl_start_last"] = float(rows[-1]["kl_start"])
    arm = folder / "arms" / live_arm(path)
    if (arm / DONE).exists():
        facts["engine"] = agreement(folder / "run", arm)
    return facts


def collect(paths: Mapping[Recording, Path], arms: Sequence[str]) -> dict[str, Any]:
    """What is there of every path whose arms are all done; the others are named in `missing`."""
    whole = {
        path: folder
        for path, folder in paths.items()
        if all((folder / "arms" / arm / DONE).exists() for arm in arms)
    }
    facts = {path.name: path_facts(path, folder) for path, folder in whole.items()}
    values = {
        arm: [measure(place, facts[path.name]["steps"]) for path, place in _places(whole, arm).items()]
        for arm in arms
        if whole
    }
    return {
        "study": "replay",
        "question": QUESTION,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu_cores": os.cpu_count(), "threads_per_run": 1},
        "versions": {"python": platform.python_version(), **installed_versions()},
        "git": git_revision(),
        "paths": facts,
        "missing": [path.name for path in paths if path not in whole],
        "runs": values,
        "summary": {
            arm: {name: asdict(interval([run[name] for run in runs])) for name in runs[0]}
            for arm, runs in values.items()
        },
        "contrasts": {name: compare_all(family, values) for name, family in FAMILIES.items()},
    }


def _places(whole: Mapping[Recording, Path], arm: str) -> dict[Recording, Place]:
    return {path: Place(arm, path.seed, folder / "arms" / arm, smoke=False) for path, folder in whole.items()}


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown: paths, arms, contrasts."""
    lines = [
        f"# {QUESTION}",
        "",
        f"{len(result['paths'])} paths; mean and 95 % interval over them (Student's t). {result['date']}.",
        "",
        "| path | entropy, first and last third | reward | KL a step | KL from start | engine's length | replay's |",
        "|---" * 7 + "|",
    ]
    for name, facts in result["paths"].items():
        engine = facts.get("engine", {"engine": float("nan"), "replay": float("nan")})
        lines.append(
            f"| {name} | {facts['entropy_early']:.3f}, {facts['entropy_late']:.3f} | {facts['reward_early']:.2f}, "
            f"{facts['reward_late']:.2f} | {facts['kl_step_median']:.1e} | {facts['kl_start_last']:.3f} | "
            f"{engine['engine']:.3f} | {engine['replay']:.3f} |"
        )
    columns = {column.name: column for column in COLUMNS}
    lines += ["", *arm_lines(result["summary"], COLUMNS)]
    if result["missing"]:
        lines += ["", f"Not run to their end: {', '.join(result['missing'])}."]
    for name, contrasts in result["contrasts"].items():
        if contrasts:
            lines += ["", f"## {name.capitalize()}", "", *contrast_lines(contrasts, columns)]
    return "\n".join(lines) + "\n"


def figure(places: Mapping[str, Sequence[Place]], shown: Sequence[str]) -> Figure:
    """Replayed acceptance length and entropy over the steps, means over the paths."""
    chosen = {arm: runs for arm, runs in places.items() if arm in shown}
    return plots.curves(
        chosen,
        {
            "acceptance length (replay)": lambda place: plots.series(place, metrics.MTP_REPLAYED_LENGTH),
            "entropy of the policy (nat)": lambda place: plots.series(place, metrics.MTP_ENTROPY),
        },
    )


def write_result(paths: Mapping[Recording, Path], arms: Sequence[str], out: Path) -> dict[str, Any]:
    """Collect, and write `result.json`, `result.md`, `result.png` and the curves into `out`."""
    result = collect(paths, arms)
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "result.md").write_text(table(result), encoding="utf-8")
    whole = {path: folder for path, folder in paths.items() if path.name in result["paths"]}
    if whole:
        places = {arm: list(_places(whole, arm).values()) for arm in arms if arm != refit.NAME}
        shown = [arm for arm in arms if arm.startswith(("frozen", "online", "still"))]
        figure(places, shown).savefig(out / "result.png")
        write_curves(out / "curves", places)
    return result
