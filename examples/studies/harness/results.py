"""A study's result: `result.json` (everything), `result.md` (the table), `result.png` (the figure)."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.runs import MARK, finished
from harness.statistics import Interval, interval, paired
from harness.study import Contrast, Place, Study, Values
from openrlhf_mtp.config.run_files import COMMAND
from openrlhf_mtp.runlog.provenance import installed_versions

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
    contrasts = [
        {**asdict(each), **asdict(_compared(each, values[each.arm], values[each.against]))}
        for each in study.contrasts
        if all(each.name in values.get(arm, [{}])[0] for arm in (each.arm, each.against))
    ]
    return {
        "study": study.name,
        "question": study.question,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu_cores": os.cpu_count(), "cpu": _processor(), "threads_per_run": 1},
        "versions": {"python": platform.python_version(), **installed_versions()},
        "git": sorted({_revision(run) for runs in whole.values() for run in runs}),
        "seeds": [run.seed for run in next(iter(places.values()))],
        "missing": [arm for arm in places if arm not in whole],
        "seconds": {
            arm: [json.loads((run.folder / MARK).read_text())["seconds"] for run in runs]
            for arm, runs in whole.items()
        },
        "runs": values,
        "summary": summary,
        "contrasts": contrasts,
    }


def _compared(contrast: Contrast, values: Sequence[Values], against: Sequence[Values]) -> Interval:
    name = contrast.name
    return paired([run[name] for run in values], [run[name] for run in against], ratio=contrast.ratio)


def _revision(run: Place) -> str:
    """The commit that a run was made with, from the last line of its `command.txt`."""
    return (run.folder / COMMAND).read_text(encoding="utf-8").splitlines()[-1].removeprefix("git ")


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
        "| arm | " + " | ".join(column.heading for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for arm, measured in result["summary"].items():
        cells = [
            _cell(measured[column.name], column.digits) if column.name in measured else "–"
            for column in columns
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    if result["missing"]:
        lines += ["", f"Not run to their end: {', '.join(result['missing'])}."]
    if result["contrasts"]:
        headings = {column.name: column for column in study.columns}
        lines += ["", "| compared seed by seed | |", "|---|---|"]
        for each in result["contrasts"]:
            column = headings[each["name"]]
            what = f"{column.heading}: {each['arm']} {'/' if each['ratio'] else '−'} {each['against']}"
            lines.append(f"| {what} | {_cell(each, column.digits, sign='' if each['ratio'] else '+')} |")
    return "\n".join(lines) + "\n"


def _has(result: Mapping[str, Any], name: str) -> bool:
    return any(name in measured for measured in result["summary"].values())


def _minutes(result: Mapping[str, Any]) -> float:
    return sum(sum(seconds) for seconds in result["seconds"].values()) / 60.0


def _cell(value: Mapping[str, float | None], digits: int, sign: str = "") -> str:
    if value["low"] is None:
        return f"{value['mean']:{sign}.{digits}f}"
    mean, low, high = (f"{value[part]:{sign}.{digits}f}" for part in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def write_result(study: Study, places: Places, out: Path) -> dict[str, Any]:
    """Collect, and write the three files into `out`."""
    result = collect(study, places)
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "result.md").write_text(table(study, result), encoding="utf-8")
    whole = {arm: runs for arm, runs in places.items() if arm in result["summary"]}
    if whole:
        study.figure(whole).savefig(out / "result.png")
    return result
