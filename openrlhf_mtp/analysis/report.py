"""Figures and one self-contained HTML file from run folders, several groups of runs side by side.

The report opens from the disk, without a server or a network: images are inside the file, and so is its only style
sheet.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.figures import FIGURES
from openrlhf_mtp.analysis.groups import Group, GroupBy, group_runs
from openrlhf_mtp.analysis.lengths import lengths_of, verdicts
from openrlhf_mtp.analysis.summary import summarize
from openrlhf_mtp.analysis.summary_table import summary_table
from openrlhf_mtp.analysis.table import duration, number
from openrlhf_mtp.runlog import metrics, run_folder
from openrlhf_mtp.runlog.agreement import disagreeing_steps, warning
from openrlhf_mtp.runlog.metric_table import Metric, UnknownMetric
from openrlhf_mtp.runlog.run import Run, read_run
from openrlhf_mtp.runlog.run_folder import RunFolderError

MANY_GROUPS, MANY_RUNS = 6, 60
READABLE_REM_PER_INCH = 4
"""On a narrow screen a figure keeps this width and is scrolled sideways rather than made too small to read."""


def write_report(runs: Sequence[Path], out: Path, by: GroupBy = GroupBy.SEED) -> Path:
    """Write `figures/*.png` and `report.html` into `out` and return the report's path.

    Runs of one group are drawn as their mean, with a band from the lowest to the highest. A figure that no run has the
    data for is replaced by a sentence that says so.

    Args:
        runs: run folders, 1 to 60.
        out: the folder to write into; made if it is not there.
        by: what makes runs one group.

    Raises:
        RunFolderError: a path is not a run folder, there are no runs, or there are more than six groups (their colors
            could not be told apart).
    """
    if not 1 <= len(runs) <= MANY_RUNS:
        raise RunFolderError(f"got {len(runs)} run folders; give 1 to {MANY_RUNS}")
    groups = group_runs([read_run(path) for path in runs], by)
    if len(groups) > MANY_GROUPS:
        raise RunFolderError(
            f"got {len(groups)} groups of runs ({', '.join(group.name for group in groups)}), expected at most "
            f"{MANY_GROUPS}; give fewer runs, or put the runs of a group into one folder and use --group folder"
        )
    images = {name: _image(spec.draw(groups)) for name, spec in FIGURES.items()}
    for name, image in images.items():
        run_folder.write_figure(out, name, None if image is None else image.png)
    return run_folder.write_report_page(out, _page(groups, images))


@dataclass(frozen=True)
class Image:
    """A drawn figure and the width, in rem, below which it is scrolled sideways."""

    png: bytes
    min_width: int


def _image(figure: Figure | None) -> Image | None:
    if figure is None:
        return None
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image(file.getvalue(), round(figure.get_figwidth() * READABLE_REM_PER_INCH))


def _page(groups: list[Group], images: Mapping[str, Image | None]) -> str:
    environment = Environment(
        loader=PackageLoader("openrlhf_mtp.analysis", "."), autoescape=True, undefined=StrictUndefined
    )
    runs = [run for group in groups for run in group.runs]
    summaries = {run.path: summarize(run) for run in runs}
    return environment.get_template("report.html.j2").render(
        title=", ".join(group.name for group in groups),
        subtitle="; ".join(_described(group, summaries) for group in groups),
        warnings=[warning for run in runs for warning in _warnings(run, summaries[run.path])],
        table=summary_table(groups, summaries),
        figures=[_figure_context(name, spec, groups, images[name]) for name, spec in FIGURES.items()],
        runs=[{"name": run.name, "command": run.command, "config": _config_text(run)} for run in runs],
        every=[row for run in runs for row in _every_metric(run, summaries[run.path], len(runs) > 1)],
    )


def _described(group: Group, summaries: dict[Path, dict[str, Any]]) -> str:
    """A group's length and time; for several runs, which seeds they are."""
    own = [summaries[run.path] for run in group.runs]
    steps = sorted({summary["steps"] for summary in own})
    counted = f"{steps[0]} steps" if len(steps) == 1 else f"{steps[0]} to {steps[-1]} steps"
    wall = duration(sum(summary["wall_s"] for summary in own) / len(own))
    if len(own) == 1:
        return f"{group.name}: {counted}, {wall}"
    return f"{group.name}: {len(own)} runs (seeds {', '.join(group.seeds)}), {counted}, {wall} each"


def _warnings(run: Run, summary: dict[str, Any]) -> list[str]:
    broken = [f"{name} is not finite at step {step}" for name, step in summary["not_finite"].items()]
    lines = [*run.warnings, *broken, *run.notices]
    if parted := disagreeing_steps(run.rows):
        until = [row for row in run.rows if row[metrics.STEP] <= parted[0]]
        lines.append(f"step {parted[0]}: {warning(until)}; {len(parted)} steps like this")
    found = lengths_of(run.rows)
    lines += verdicts(found) if found is not None else []
    return [f"{run.name}: {line}" for line in lines]


def _figure_context(name: str, spec: FigureSpec, groups: list[Group], image: Image | None) -> dict[str, Any]:
    missing = f"Nothing to show: no step logged {' or '.join(spec.needs)}."
    return {
        "name": name,
        "title": spec.title,
        "caption": spec.caption,
        "image": "" if image is None else base64.b64encode(image.png).decode(),
        "missing": missing,
        "min_width": 0 if image is None else image.min_width,
        "table": None if spec.table is None else spec.table(groups),
    }


def _every_metric(run: Run, summary: dict[str, Any], several: bool) -> list[dict[str, Any]]:
    rows = []
    for name, extent in summary["metrics"].items():
        try:
            declared = metrics.lookup(name)
        except UnknownMetric:
            declared = Metric(name, "", "not declared by this version")
        numbers = [number(extent[key]) for key in ("first", "last", "min", "max")]
        shown = f"{run.name}: {name}" if several else name
        rows.append({"name": shown, "unit": declared.unit, "meaning": declared.meaning, "numbers": numbers})
    return rows


def _config_text(run: Run) -> str:
    return yaml.safe_dump(run.config, sort_keys=False) if run.config else "run.yaml is missing"
