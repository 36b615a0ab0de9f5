"""Acceptance over the policy's entropy, position by position, and the line through all positions.

A steep negative slope is the mark of greedy drafts, or of a head trained for its mode (`positions` says why).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.analysis.positions import (
    CLUSTER_NOTE,
    DRAFTS,
    ENTROPY_AXIS,
    NEEDED,
    SPLITS,
    Draft,
    Positions,
    binned,
    draw_bins,
    positions,
    recorded_splits,
)
from openrlhf_mtp.analysis.regression import Line, fit_line
from openrlhf_mtp.analysis.table import Table, number, signed
from openrlhf_mtp.runlog.anchor_records import Records

DRAFT_COLORS = {"sampled": "#2a6fbb", "greedy": "#d1691d"}


@dataclass(frozen=True)
class EntropySlope:
    """The line of one depth and one way of drafting; None where it cannot be told."""

    depth: int
    draft: Draft
    line: Line | None
    acceptance: float


def slopes(records: Sequence[Records]) -> list[EntropySlope]:
    """The line of each depth, for sampled drafts and (where recorded) greedy ones, over all the given steps."""
    found = []
    for depth in range(1, max((one.depths for one in records), default=0) + 1):
        at = positions(records, depth)
        for draft in DRAFTS:
            values = at.of(draft)
            if np.isfinite(values).any():
                line = fit_line(at.entropy, values, at.cluster)
                found.append(EntropySlope(depth, draft, line, float(np.nanmean(values))))
    return found


def draw(groups: Groups) -> Figure | None:
    """Draw acceptance at depth 1 over bins of entropy, with the line through all positions; a panel a split."""
    splits = recorded_splits(groups)
    if not splits:
        return None
    figure, axes = style.panels(len(splits))
    for panel, split in zip(axes, splits, strict=True):
        for nth, group in enumerate(groups):
            at = positions(group.recorded(held_out=split.held_out), 1)
            for draft in DRAFTS:
                shade = DRAFT_COLORS[draft] if len(groups) == 1 else style.group_color(nth)
                _points_and_line(panel, at, draft, shade, None if len(groups) == 1 else group.label)
        style.label(panel, f"Acceptance at depth 1, {split.title}", "acceptance", ENTROPY_AXIS)
        style.unit_interval(panel)
        style.legend(panel)
    return figure


def _points_and_line(axes: Axes, at: Positions, draft: Draft, shade: str, group: str | None) -> None:
    """One way of drafting; a single group has room in its legend for the slope."""
    values = at.of(draft)
    bins = binned(at.entropy, values, at.cluster)
    if not bins:
        return
    line = fit_line(at.entropy, values, at.cluster)
    slope = "" if line is None else f", {line.slope:+.3f} per nat"
    name = f"{draft}{slope}" if group is None else f"{group}, {draft}"
    draw_bins(axes, bins, shade, name, "o" if draft == "sampled" else "s", filled=draft == "sampled")
    if line is not None:
        ends = np.linspace(line.x_low, line.x_high, 50)
        axes.plot(ends, line.at(ends), "-" if draft == "sampled" else "--", color=shade, linewidth=1.2)
        half = line.half_width(ends)
        style.band(axes, list(ends), list(line.at(ends) - half), list(line.at(ends) + half), shade)


def table(groups: Groups) -> Table | None:
    """List the fitted line of every group, split, depth and way of drafting."""
    rows = []
    for group in groups:
        for split in SPLITS:
            for one in slopes(group.recorded(held_out=split.held_out)):
                head = [group.label, split.name, f"depth {one.depth}", one.draft, f"{one.acceptance:.3f}"]
                rows.append([*head, *_line_cells(one.line)])
    header = [
        "run",
        "data",
        "depth",
        "draft",
        "mean acceptance",
        "slope per nat",
        "at 0 nat",
        "fitted on",
        "positions",
    ]
    return Table(header, rows, CLUSTER_NOTE) if rows else None


def _line_cells(line: Line | None) -> list[str]:
    if line is None:
        return ["entropy does not vary", "–", "–", "–"]
    return [
        signed(line.slope, line.slope_high - line.slope),
        f"{line.intercept:.3f}",
        f"{line.x_low:.2f} to {line.x_high:.2f} nat",
        f"{number(line.points)} in {number(line.clusters)} clusters",
    ]


FIGURE = FigureSpec(
    "entropy_acceptance",
    "Entropy against acceptance",
    "Second half of the run. Each point is the mean over positions of similar entropy with its 95 % interval; the "
    "line is fitted to all positions. A head trained for overlap and verified by rejection sampling keeps its "
    "acceptance when entropy rises; a steep negative slope is the mark of greedy drafts or a cross-entropy head.",
    (NEEDED,),
    draw,
    table,
)
