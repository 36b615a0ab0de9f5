"""A study's result: `result.json` (everything), `result.md` (the table), `result.png` (the figure), `curves/`."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.contrasts import arm_lines, compare_all, contrast_lines
from harness.curves import write_curves
from harness.runs import MARK, commit_of, finished
from harness.statistics import interval
from harness.study import Place, Study
from openrlhf_mtp.runlog.provenance import git_revision, installed_versions

Places = Mapping[str, Sequence[Place]]


def collect(study: Study, places: Places) -> dict[str, Any]:
    """Measure every finished run and put it together with where it came from.

    An arm is left out of the result while one of its runs with its present job is missing, and named in `missing`.
    """
    arms = {arm.name: arm for arm in study.arms}
    whole = {
        name: runs for name, runs in places.items() if all(finished(study, arms[name], run) for run in runs)
    }
    values = {arm: [study.measure(run) for run in runs] for arm, runs in whole.items()}
    summary = {
        arm: {name: asdict(interval([run[name] for run in runs])) for name in runs[0]}
        for arm, runs in values.items()
    }
    commits = {arm: [commit_of(run) for run in runs] for arm, runs in whole.items()}
    return {
        "study": study.name,
        "question": study.question,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu_cores": os.cpu_count(), "cpu": _processor(), "threads_per_run": 1},
        "versions": {"python": platform.python_version(), **installed_versions()},
        "git": sorted({commit for runs in commits.values() for commit in runs}),
        "commits": commits,
        "measured_at": git_revision(),
        "seeds": [run.seed for run in next(iter(places.values()))],
        "missing": [arm for arm in places if arm not in whole],
        "seconds": {
            arm: [json.loads((run.folder / MARK).read_text())["seconds"] for run in runs]
            for arm, runs in whole.items()
        },
        "runs": values,
        "summary": summary,
        "contrasts": compare_all(study.contrasts, values),
    }


def _processor() -> str:
    """The processor's name as Linux gives it, or its architecture elsewhere."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(study: Study, result: Mapping[str, Any]) -> str:
    """The result as Markdown: a line an arm, a line a contrast."""
    columns = [column for column in study.columns if _has(result, column.name)]
    seeds = ", ".join(map(str, result["seeds"]))
    lines = [
        f"# {study.question}",
        "",
        f"Seeds {seeds}; mean and 95 % interval over them (Student's t). {result['machine']['cpu_cores']} CPU cores "
        f"({result['machine']['cpu']}), one thread a run; {_minutes(result):.0f} minutes of runs in all. "
        f"{result['date']}.",
        "",
        *arm_lines(result["summary"], columns),
    ]
    if result["missing"]:
        lines += ["", f"Not run to their end: {', '.join(result['missing'])}."]
    if len(result["git"]) > 1:
        lines += ["", "**The runs are of several commits:** " + "; ".join(_commits(result)) + "."]
    if result["contrasts"]:
        lines += ["", *contrast_lines(result["contrasts"], {column.name: column for column in study.columns})]
    return "\n".join(lines) + "\n"


def _has(result: Mapping[str, Any], name: str) -> bool:
    return any(name in measured for measured in result["summary"].values())


def _minutes(result: Mapping[str, Any]) -> float:
    return sum(sum(seconds) for seconds in result["seconds"].values()) / 60.0


def _commits(result: Mapping[str, Any]) -> list[str]:
    """Each commit with the arms that have runs of it."""
    return [
        f"{commit[:7]} ({', '.join(arm for arm, runs in result['commits'].items() if commit in runs)})"
        for commit in result["git"]
    ]


def write_result(study: Study, places: Places, out: Path) -> dict[str, Any]:
    """Collect, and write the three files and the curves into `out`."""
    result = collect(study, places)
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "result.md").write_text(table(study, result), encoding="utf-8")
    whole = {arm: runs for arm, runs in places.items() if arm in result["summary"]}
    if whole:
        study.figure(whole).savefig(out / "result.png")
        if study.runs_of is None:
            write_curves(out / "curves", whole)
    return result
