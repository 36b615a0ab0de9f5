"""What all figures are put together from: a group's curve, its color, and panels of metrics over steps."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.groups import Group

Groups = Sequence[Group]


def over_steps(groups: Groups, *wanted: tuple[str, str, str]) -> Figure | None:
    """Panels of (metric, title, unit), those that some group has; a curve a group."""
    present = [one for one in wanted if any(group.has(one[0]) for group in groups)]
    if not present:
        return None
    figure, axes = style.panels(len(present))
    for panel, (metric, title, unit) in zip(axes, present, strict=True):
        for number, group in enumerate(groups):
            curve(panel, group, metric, color(number), group.label)
        style.label(panel, title, unit)
        scale(panel, [value for group in groups for value in group.band(metric).high], unit)
        style.legend(panel)
    return figure


def curve(axes: Axes, group: Group, metric: str, shade: str, name: str, dash: str = "-") -> None:
    """A group's metric over steps: the mean as a line, and what lies between its runs as a band."""
    band = group.band(metric)
    if not band.steps:
        return
    if len(group.runs) > 1:
        style.band(axes, band.steps, band.low, band.high, shade)
    style.line(axes, band.steps, band.mean, shade, name, dash)


def scale(axes: Axes, values: list[float], unit: str) -> None:
    """0 to 1 for shares and for scores within it; from 0 for what cannot be negative; as it comes otherwise."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) < 0:
        return
    if unit in ("fraction", "score") and max(finite) <= 1:
        style.unit_interval(axes)
    else:
        style.from_zero(axes, max(finite))


def color(number: int) -> str:
    """Of a group."""
    return style.RUN_COLORS[number % len(style.RUN_COLORS)]


def depth_color(j: int) -> str:
    """Of a depth."""
    return style.DEPTH_COLORS[(j - 1) % len(style.DEPTH_COLORS)]
