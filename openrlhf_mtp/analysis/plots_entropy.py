"""What draws the figures of entropy against acceptance: position by position, and over a run."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.drawing import Groups, color, depth_color
from openrlhf_mtp.analysis.drift import Drift
from openrlhf_mtp.analysis.entropy import DRAFTS, Bin, Draft, Positions, binned, compare, positions
from openrlhf_mtp.analysis.groups import Group, together
from openrlhf_mtp.analysis.regression import fit_line
from openrlhf_mtp.analysis.tables_entropy import drift_of, drift_series
from openrlhf_mtp.runlog import metrics

SPLITS = ((False, "rollout"), (True, "held-out prompts"))
DRAFT_COLORS = {"sampled": "#2a6fbb", "greedy": "#d1691d"}
ENTROPY_AXIS = "policy entropy at the position (nat)"


def entropy_positions(groups: Groups) -> Figure | None:
    """Acceptance at depth 1 over groups of similar entropy, with the line through all positions; a panel a split."""
    splits = _splits(groups)
    if not splits:
        return None
    figure, axes = style.panels(len(splits))
    for panel, (held_out, title) in zip(axes, splits, strict=True):
        for number, group in enumerate(groups):
            at = positions(group.recorded(held_out=held_out), 1)
            for draft in DRAFTS:
                shade = DRAFT_COLORS[draft] if len(groups) == 1 else color(number)
                _points_and_line(panel, at, draft, shade, None if len(groups) == 1 else group.label)
        style.label(panel, f"Acceptance at depth 1, {title}", "acceptance", ENTROPY_AXIS)
        style.unit_interval(panel)
        style.legend(panel)
    return figure


def _splits(groups: Groups) -> list[tuple[bool, str]]:
    return [one for one in SPLITS if any(group.recorded(held_out=one[0]) for group in groups)]


def _points_and_line(axes: Axes, at: Positions, draft: Draft, shade: str, group: str | None) -> None:
    """One way of drafting; a single group has room in its legend for the slope."""
    values = at.of(draft)
    bins = binned(at.entropy, values, at.cluster)
    if not bins:
        return
    line = fit_line(at.entropy, values, at.cluster)
    slope = "" if line is None else f", {line.slope:+.3f} per nat"
    name = f"{draft}{slope}" if group is None else f"{group}, {draft}"
    _points(axes, bins, shade, name, "o" if draft == "sampled" else "s", filled=draft == "sampled")
    if line is not None:
        ends = np.linspace(line.x_low, line.x_high, 50)
        axes.plot(ends, line.at(ends), "-" if draft == "sampled" else "--", color=shade, linewidth=1.2)
        half = line.half_width(ends)
        style.band(axes, list(ends), list(line.at(ends) - half), list(line.at(ends) + half), shade)


def _points(axes: Axes, bins: list[Bin], shade: str, name: str, marker: str, *, filled: bool = True) -> None:
    axes.errorbar(
        [one.entropy for one in bins],
        [one.acceptance.value for one in bins],
        [np.nan_to_num(one.acceptance.half_width) for one in bins],
        fmt=marker,
        color=shade,
        markersize=4,
        markerfacecolor=shade if filled else "white",
        elinewidth=1.0,
        label=name,
    )


def sampling_gain(groups: Groups) -> Figure | None:
    """Acceptance of a sampled draft minus that of a greedy one: by entropy, a panel a split, and over steps."""
    splits = [
        one
        for one in _splits(groups)
        if any(compare(positions(group.recorded(held_out=one[0]), 1)) for group in groups)
    ]
    logged = any(group.has(metrics.depth_metric(metrics.MTP_ALPHA_GREEDY, 1)) for group in groups)
    if not splits and not logged:
        return None
    figure, axes = style.panels(len(splits) + logged)
    for panel, (held_out, title) in zip(axes, splits, strict=False):
        for number, group in enumerate(groups):
            _gain_by_entropy(panel, group, number, held_out=held_out, alone=len(groups) == 1)
        style.label(panel, f"Sampled minus greedy, {title}", "acceptance gained", ENTROPY_AXIS)
    if logged:
        for number, group in enumerate(groups):
            _gain_over_steps(axes[-1], group, number, alone=len(groups) == 1)
        style.label(axes[-1], "Sampled minus greedy, mean of a step", "acceptance gained")
    for panel in axes:
        style.zero(panel)
        style.legend(panel)
    return figure


def _gain_by_entropy(axes: Axes, group: Group, number: int, *, held_out: bool, alone: bool) -> None:
    recorded = group.recorded(held_out=held_out)
    for j in range(1, (max((one.depths for one in recorded), default=0) if alone else 1) + 1):
        compared = compare(positions(recorded, j))
        if compared is None:
            continue
        shade, name = (depth_color(j), f"depth {j}") if alone else (color(number), f"{group.label}, depth 1")
        _points(axes, compared.bins, shade, name, "o")
        gained = [(one.entropy, one.acceptance.value) for one in compared.bins]
        axes.plot(*np.array(gained).reshape(-1, 2).T, color=shade, linewidth=1.0)
        if compared.crossing is not None and j == 1:
            axes.axvline(compared.crossing, color=shade, linewidth=0.9, linestyle=":")


def _gain_over_steps(axes: Axes, group: Group, number: int, *, alone: bool) -> None:
    depths = group.depths(metrics.MTP_ALPHA_GREEDY)
    for j in range(1, depths + 1) if alone else range(1, min(depths, 1) + 1):
        bands = [
            group.band(metrics.depth_metric(base, j))
            for base in (metrics.MTP_ALPHA, metrics.MTP_ALPHA_GREEDY)
        ]
        steps, sampled, greedy = together([(band.steps, band.mean) for band in bands])
        shade, name = (depth_color(j), f"depth {j}") if alone else (color(number), f"{group.label}, depth 1")
        style.line(axes, list(steps), list(sampled - greedy), shade, name)


def drift(groups: Groups) -> Figure | None:
    """The change of acceptance over a run, split into entropy's part and the head's own."""
    found = {group.label: (group, split) for group in groups if (split := drift_of(group)) is not None}
    if not found:
        return None
    return _drift_alone(*next(iter(found.values()))) if len(found) == 1 else _drift_beside(found)


def _drift_alone(group: Group, split: Drift) -> Figure:
    figure, axes = style.panels(2)
    series = drift_series(group)
    assert series is not None, "a run with a split has the series it was made of"
    _, entropy, acceptance = series
    shades = [to_rgba(color(0), alpha) for alpha in np.linspace(0.3, 1.0, len(entropy))]
    axes[0].scatter(entropy, acceptance, s=16, c=shades, linewidths=0, label="a step (later ones darker)")
    if split.slope is not None:
        ends = np.array([np.nanmin(entropy), np.nanmax(entropy)])
        slope = f"b = {split.slope.slope:+.2f} per nat, first {split.early} steps"
        axes[0].plot(ends, split.slope.at(ends), color=color(1), linewidth=1.2, label=slope)
    style.label(axes[0], "Entropy and acceptance of each step", "overlap at depth 1", "policy entropy (nat)")
    _parts(axes[1], split)
    style.label(axes[1], "Change since the early phase", "overlap at depth 1")
    for panel in axes:
        style.legend(panel)
    return figure


def _parts(axes: Axes, split: Drift) -> None:
    parts = (
        ("measured", split.change, 0),
        ("by entropy", split.by_entropy, 1),
        ("mismatch", split.mismatch, 2),
    )
    for name, values, number in parts:
        if values is not None:
            style.line(axes, list(split.steps), list(values), color(number), name)
    axes.axvspan(
        float(split.steps[0]), float(split.steps[split.early - 1]), color="#f0f0f0", zorder=0, label="early"
    )
    style.zero(axes)


def _drift_beside(found: dict[str, tuple[Group, Drift]]) -> Figure:
    figure, axes = style.panels(3)
    titles = ("Measured change", "Entropy's part", "Mismatch: the head's own part")
    for number, (name, (_, split)) in enumerate(found.items()):
        parts: tuple[NDArray[np.float64] | None, ...] = (split.change, split.by_entropy, split.mismatch)
        for panel, values in zip(axes, parts, strict=True):
            if values is not None:
                style.line(panel, list(split.steps), list(values), color(number), name)
    for panel, title in zip(axes, titles, strict=True):
        style.zero(panel)
        style.label(panel, title, "overlap at depth 1")
        style.legend(panel)
    return figure
