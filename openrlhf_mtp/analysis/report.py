"""Figures and one self-contained HTML file from run folders, several runs side by side.

The report opens from the disk, without a server or a network: images are inside the file, and so is its only style
sheet.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from openrlhf_mtp import metrics, run_folder
from openrlhf_mtp.analysis.figures import FIGURES, FigureSpec
from openrlhf_mtp.analysis.summary import summarize
from openrlhf_mtp.run_folder import Run, read_run

MANY_RUNS = 6
READABLE_REM_PER_INCH = 4
"""On a narrow screen a figure keeps this width and is scrolled sideways rather than made too small to read."""


@dataclass(frozen=True)
class TableRow:
    """A row of the summary table: what it shows and a cell for each run."""

    label: str
    cells: list[str]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write `figures/*.png` and `report.html` into `out` and return the report's path.

    What a run did not measure is said in the place of its figure. Raises `RunFolderError` if a path is not a run
    folder, or if there are no runs or more than six (their colours could not be told apart).
    """
    if not 1 <= len(runs) <= MANY_RUNS:
        raise run_folder.RunFolderError(f"got {len(runs)} run folders; give 1 to {MANY_RUNS}")
    read = _distinctly_named([read_run(path) for path in runs])
    folder = out / run_folder.FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {name: spec.draw(read) for name, spec in FIGURES.items()}
    for name, figure in drawn.items():
        _save(figure, folder / f"{name}.png")
    report = out / run_folder.REPORT
    report.write_text(_page(read, drawn, folder), encoding="utf-8")
    return report


def _distinctly_named(runs: list[Run]) -> list[Run]:
    """Runs of the same folder name get their parent's name in front, so that a legend can tell them apart."""
    names = [run.name for run in runs]
    return [
        run
        if names.count(run.name) == 1
        else replace(run, name=f"{run.path.resolve().parent.name}/{run.name}")
        for run in runs
    ]


def _save(figure: Figure | None, path: Path) -> None:
    if figure is None:
        path.unlink(missing_ok=True)
    else:
        figure.savefig(path)


def _page(runs: list[Run], drawn: dict[str, Figure | None], folder: Path) -> str:
    environment = Environment(
        loader=PackageLoader("openrlhf_mtp.analysis", "."), autoescape=True, undefined=StrictUndefined
    )
    summaries = [summarize(run) for run in runs]
    return environment.get_template("report.html.j2").render(
        title=", ".join(run.name for run in runs),
        subtitle="; ".join(
            f"{run.name}: {summary['steps']} steps, {_duration(summary['wall_s'])}"
            for run, summary in zip(runs, summaries, strict=True)
        ),
        warnings=[
            warning
            for run, summary in zip(runs, summaries, strict=True)
            for warning in _warnings(run, summary)
        ],
        run_names=[run.name for run in runs],
        table=summary_table(summaries),
        figures=[_figure_context(name, spec, drawn[name], folder) for name, spec in FIGURES.items()],
        runs=[{"name": run.name, "command": run.command, "config": _config_text(run)} for run in runs],
        every=[row for summary in summaries for row in _every_metric(summary)],
    )


def _warnings(run: Run, summary: dict[str, Any]) -> list[str]:
    broken = [f"{name} is not finite at step {step}" for name, step in summary["not_finite"].items()]
    return [f"{run.name}: {warning}" for warning in [*run.warnings, *broken]]


def _figure_context(name: str, spec: FigureSpec, figure: Figure | None, folder: Path) -> dict[str, str | int]:
    image = base64.b64encode((folder / f"{name}.png").read_bytes()).decode() if figure is not None else ""
    missing = f"Nothing to show: no step logged {' or '.join(spec.needs)}."
    width = round(figure.get_figwidth() * READABLE_REM_PER_INCH) if figure is not None else 0
    text = {"name": name, "title": spec.title, "caption": spec.caption, "image": image, "missing": missing}
    return {**text, "min_width": width}


def summary_table(summaries: Sequence[dict[str, Any]]) -> list[TableRow]:
    """The rows that every reader asks for first, those that some run has; a cell a run."""
    rows = [
        TableRow("steps", [str(summary["steps"]) for summary in summaries]),
        TableRow("wall time of the steps", [_duration(summary["wall_s"]) for summary in summaries]),
    ]
    for label, metric, keys in (
        ("reward, first → last step", "policy/reward", ("first", "last")),
        ("held-out accuracy, first → last", "eval/accuracy", ("first", "last")),
        ("mean acceptance length, first → last", "spec/mean_acceptance_length", ("first", "last")),
        ("mean acceptance length, lowest", "spec/mean_acceptance_length", ("min",)),
        ("mean acceptance length, mean", "spec/mean_acceptance_length", ("mean",)),
        ("expected length (trainer), first → last", "mtp/expected_length", ("first", "last")),
        ("engine-trainer log-prob gap, largest step mean (nat)", "spec/logprob_gap", ("max",)),
        ("rollout throughput, mean (token/s)", metrics.ROLLOUT_TOK_S, ("mean",)),
        ("synchronisation, mean (s)", "time/sync_s", ("mean",)),
        ("synchronisation, bytes a round", "sync/bytes", ("last",)),
        ("synchronisation, calls a round", "sync/rpc_calls", ("last",)),
        ("step, mean (s)", "time/step_s", ("mean",)),
    ):
        extents = [summary["metrics"].get(metric) for summary in summaries]
        if any(extents):
            cells = [" → ".join(number(e[key]) for key in keys) if e else "–" for e in extents]
            rows.append(TableRow(label, cells))
    parts = list(dict.fromkeys(part for summary in summaries for part in summary["time_share"]))
    for part in parts:
        shares = [summary["time_share"].get(part) for summary in summaries]
        rows.append(TableRow(f"share of time: {part}", ["–" if s is None else f"{s:.0%}" for s in shares]))
    return rows


def _every_metric(summary: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, extent in summary["metrics"].items():
        try:
            declared = metrics.lookup(name)
        except metrics.UnknownMetric:
            declared = metrics.Metric(name, "", "not declared by this version")
        numbers = [number(extent[key]) for key in ("first", "last", "min", "max")]
        rows.append({"name": name, "unit": declared.unit, "meaning": declared.meaning, "numbers": numbers})
    return rows


def number(value: float) -> str:
    """Three significant digits, without an exponent where a reader would have to count zeros."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", " ")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _config_text(run: Run) -> str:
    return yaml.safe_dump(run.config, sort_keys=False) if run.config else "run.yaml is missing"
