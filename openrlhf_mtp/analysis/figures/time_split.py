"""Seconds of each step by part."""

import numpy as np
from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.analysis.summary import OTHER, TIME_PARTS, row_parts
from openrlhf_mtp.runlog import metrics


def draw(groups: Groups) -> Figure | None:
    """Draw stacked bars over steps, one panel a group."""
    split = {group.label: [row for row in group.mean_rows() if row_parts(row)] for group in groups}
    timed = {name: rows for name, rows in split.items() if rows}
    if not timed:
        return None
    figure, axes = style.panels(len(timed))
    for panel, (name, rows) in zip(axes, timed.items(), strict=True):
        steps = [row[metrics.STEP] for row in rows]
        base = np.zeros(len(rows))
        for part in [*(name for name, _ in TIME_PARTS), OTHER]:
            seconds = np.array([row_parts(row).get(part, 0.0) for row in rows])
            if seconds.any():
                panel.bar(steps, seconds, 0.85, bottom=base, color=style.PART_COLORS[part], label=part)
            base += seconds
        style.label(panel, "Time of a step" if len(timed) == 1 else name, "s")
        style.legend(panel)
    return figure


FIGURE = FigureSpec(
    "time_split",
    "Where the time goes",
    "Seconds of each step by part.",
    tuple(name for _, name in TIME_PARTS),
    draw,
)
