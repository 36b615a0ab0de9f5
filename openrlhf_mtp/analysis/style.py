"""The look of every figure: colors, sizes, panels, and the curve of a group of runs over steps."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from openrlhf_mtp.analysis.groups import Group, Groups

GROUP_COLORS = ("#2a6fbb", "#d1691d", "#2d8a57", "#8d5bb0", "#b8405e", "#6b6b6b")
DEPTH_COLORS = ("#12507b", "#3f8fc4", "#8cc0e0", "#5a9d8f", "#8ab86a", "#c2b34d", "#c98a3c", "#b85c4a")
PART_COLORS = {
    "rollout": "#2a6fbb",
    "experience": "#8cc0e0",
    "training": "#d1691d",
    "sync": "#2d8a57",
    "other": "#b9b9b9",
}
INK, GRID, BROKEN = "#333333", "#e4e4e4", "#c0392b"
FEW_POINTS = 40
PANEL_WIDTH, PANEL_HEIGHT, DPI = 4.4, 3.0, 140


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """An empty figure of `count` panels, at most three in a row."""
    columns = 2 if count == 4 else min(count, 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(PANEL_WIDTH * columns, PANEL_HEIGHT * rows), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.set_axis_off()
    axes = axes[:count]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color("#999999")
        one.tick_params(colors=INK, labelsize=8)
        one.grid(True, color=GRID, linewidth=0.7)
        one.set_axisbelow(True)
    return figure, axes


def label(axes: Axes, title: str, y: str, x: str = "step") -> None:
    """Title and axis names; whole numbers on a step axis."""
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=8.5, color=INK)
    axes.set_ylabel(y, fontsize=8.5, color=INK)
    if x == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def line(
    axes: Axes, steps: Sequence[float], values: Sequence[float], color: str, name: str, dash: str = "-"
) -> None:
    """One series. Steps whose value is not finite leave a gap and a cross at the bottom of the panel."""
    marker = "o" if len(steps) <= FEW_POINTS and dash != ":" else ""
    shown = [value if math.isfinite(value) else math.nan for value in values]
    axes.plot(steps, shown, dash, color=color, marker=marker, markersize=2.8, linewidth=1.5, label=name)
    broken = [step for step, value in zip(steps, values, strict=True) if not math.isfinite(value)]
    if broken:
        bottom = axes.get_xaxis_transform()
        axes.plot(
            broken,
            [0.02] * len(broken),
            "x",
            color=BROKEN,
            transform=bottom,
            label="not finite",
            clip_on=False,
        )


def band(axes: Axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], color: str) -> None:
    """The area between two curves."""
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def zero(axes: Axes) -> None:
    """A line at 0, for what may be negative."""
    axes.axhline(0.0, color="#999999", linewidth=0.8)


def legend(axes: Axes) -> None:
    """A legend below the panel where it can hide no data, if there is more than one name to tell apart."""
    handles, names = axes.get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    if len(unique) > 1:
        longest = max(map(len, unique))
        axes.legend(
            list(unique.values()),
            list(unique),
            fontsize=7.5,
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=1 if longest > 28 else 2 if longest > 14 else 3,
            handlelength=2.4,
        )


def unit_interval(axes: Axes) -> None:
    """A fixed axis from 0 to 1, so that two reports can be compared by eye."""
    axes.set_ylim(-0.03, 1.03)


def lengths(axes: Axes, depths: int) -> None:
    """An axis from no gain to the most that `depths` drafts can give, which a dotted line marks."""
    axes.axhline(depths + 1, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_ylim(0.95, depths + 1.1)


def from_zero(axes: Axes, largest: float) -> None:
    """An axis that starts at 0, so that noise does not fill the panel."""
    axes.set_ylim(0, largest * 1.12 if largest > 0 else 1)


def group_color(number: int) -> str:
    """The color of a group of runs, counted from 0; the same in every figure."""
    return GROUP_COLORS[number % len(GROUP_COLORS)]


def depth_color(j: int) -> str:
    """The color of a depth, counted from 1; the same in every figure."""
    return DEPTH_COLORS[(j - 1) % len(DEPTH_COLORS)]


def curve(axes: Axes, group: Group, metric: str, shade: str, name: str, dash: str = "-") -> None:
    """A group's metric over steps: the mean as a line, and what lies between its runs as a band."""
    values = group.band(metric)
    if not values.steps:
        return
    if len(group.runs) > 1:
        band(axes, values.steps, values.low, values.high, shade)
    line(axes, values.steps, values.mean, shade, name, dash)


def over_steps(groups: Groups, *wanted: tuple[str, str, str]) -> Figure | None:
    """Panels of (metric, title, unit), those that some group has; a curve a group."""
    present = [one for one in wanted if any(group.has(one[0]) for group in groups)]
    if not present:
        return None
    figure, axes = panels(len(present))
    for panel, (metric, title, unit) in zip(axes, present, strict=True):
        for number, group in enumerate(groups):
            curve(panel, group, metric, group_color(number), group.label)
        label(panel, title, unit)
        scale(panel, [value for group in groups for value in group.band(metric).high], unit)
        legend(panel)
    return figure


def scale(axes: Axes, values: list[float], unit: str) -> None:
    """An axis from 0 to 1 for shares and for scores within it; from 0 for what cannot be negative; else as it comes."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) < 0:
        return
    if unit in ("fraction", "score") and max(finite) <= 1:
        unit_interval(axes)
    else:
        from_zero(axes, max(finite))
