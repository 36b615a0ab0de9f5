"""Acceptance length against the policy's entropy, moved by the sampling temperature alone."""

import numpy as np
from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.analysis.positions import ENTROPY_AXIS
from openrlhf_mtp.analysis.table import Table, signed
from openrlhf_mtp.analysis.temperature_slope import slope_of
from openrlhf_mtp.runlog.temperature_sweep import FILE


def draw(groups: Groups) -> Figure | None:
    """Draw every run's points with their standard errors, and the line through them."""
    if not any(run.temperatures for group in groups for run in group.runs):
        return None
    figure, axes = style.panels(1)
    for number, group in enumerate(groups):
        color = style.group_color(number)
        for run in group.runs:
            entropy, length, error = (
                [vars(point)[name] for point in run.temperatures]
                for name in ("entropy", "length", "length_error")
            )
            axes[0].errorbar(
                entropy, length, yerr=error, fmt="o", color=color, markersize=3.5, label=group.label
            )
            slope, _ = slope_of(run.temperatures)
            if slope is not None:
                ends = np.array([min(entropy), max(entropy)])
                axes[0].plot(
                    ends, slope.length + slope.value * (ends - slope.entropy), color=color, linewidth=1.0
                )
    style.label(axes[0], "Length by temperature", "tokens per target forward", ENTROPY_AXIS)
    style.legend(axes[0])
    return figure


def table(groups: Groups) -> Table | None:
    """List the points of every run and the slope in tokens per nat."""
    rows = []
    for group in groups:
        for run in group.runs:
            slope, _ = slope_of(run.temperatures)
            for at, point in enumerate(run.temperatures):
                b = "" if slope is None or at else signed(slope.value, slope.half_width)
                bend = "" if slope is None or at else f"{slope.bend:.3f}"
                numbers = [f"{point.entropy:.3f}", f"{point.length:.3f} ± {point.length_error:.3f}"]
                rows.append([run.name, f"{point.temperature:g}", *numbers, str(point.responses), b, bend])
    header = [
        "run",
        "temperature",
        "entropy (nat)",
        "length (tokens)",
        "responses",
        "tokens per nat",
        "off the line",
    ]
    note = (
        "± of a length is its standard error over responses, ± of a slope half its 95 % interval. The last column is "
        "the largest distance of a point from the line."
    )
    return Table(header, rows, note) if rows else None


FIGURE = FigureSpec(
    "temperatures",
    "Length by entropy, policy and head held still",
    "Policy and head as they were before RL, on responses sampled at several temperatures: the entropy changes, the "
    "weights do not. The slope is in tokens of acceptance length per nat, and the drift split takes it from here.",
    (FILE,),
    draw,
    table,
)
