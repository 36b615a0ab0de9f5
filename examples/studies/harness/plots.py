"""The studies' figures, in the look of the reports."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from harness.statistics import interval
from harness.study import Place, Values
from openrlhf_mtp.analysis import style
from openrlhf_mtp.runlog.run import read_run

Series = tuple[Sequence[float], Sequence[float]]
"""Steps and values of one run."""

COLORS = (*style.GROUP_COLORS, "#b59a2f", "#35a3a3")


def groups(values: Mapping[str, Sequence[Values]], panels: Mapping[str, Sequence[tuple[str, str]]]) -> Figure:
    """A panel a title: for each (name, label) the arms side by side, a dot a seed, mean and interval.

    Args:
        values: what was measured, by arm, a dictionary a seed.
        panels: the names of the values that each panel shows, and how it labels them.
    """
    figure, axes = style.panels(len(panels))
    width = 0.8 / len(values)
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for number, (arm, runs) in enumerate(values.items()):
            color = COLORS[number % len(COLORS)]
            for at, (name, _) in enumerate(names):
                x = at + (number - (len(values) - 1) / 2) * width
                measured = [run[name] for run in runs]
                mean = interval(measured)
                axis.plot([x] * len(measured), measured, ".", color=color, alpha=0.45, markersize=4)
                if mean.low is not None and mean.high is not None:
                    axis.plot([x, x], [mean.low, mean.high], color=color, linewidth=1.6)
                axis.plot([x], [mean.mean], "_", color=color, markersize=9, label=arm)
        style.label(axis, title, "", x="")
        axis.set_xticks(range(len(names)), [label for _, label in names])
    style.legend(axes[0])
    return figure


def series(place: Place, metric: str) -> Series:
    """One metric of a run, over its training steps."""
    steps, values = read_run(place.folder).series(metric)
    kept = [(step, value) for step, value in zip(steps, values, strict=True) if step > 0]
    return [step for step, _ in kept], [value for _, value in kept]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each point, of those there are."""
    return [float(np.nanmean(values[max(0, at + 1 - window) : at + 1])) for at in range(len(values))]


def curves(
    places: Mapping[str, Sequence[Place]],
    panels: Mapping[str, Callable[[Place], Series]],
    window: int = 10,
) -> Figure:
    """A panel a title: each arm's mean over seeds with the band from its lowest to its highest seed, smoothed.

    An arm without the series (a metric that its regime does not have) is left out of the panel.
    """
    figure, axes = style.panels(len(panels))
    for axis, (title, read) in zip(axes, panels.items(), strict=True):
        for number, (arm, runs) in enumerate(places.items()):
            read_runs = [read(run) for run in runs]
            length = min(len(steps) for steps, _ in read_runs)
            if not length:
                continue
            stacked = np.array([smooth(values, window)[:length] for _, values in read_runs])
            steps, color = read_runs[0][0][:length], COLORS[number % len(COLORS)]
            axis.plot(steps, stacked.mean(0), color=color, linewidth=1.5, label=arm)
            axis.fill_between(steps, stacked.min(0), stacked.max(0), color=color, alpha=0.15, linewidth=0)
        style.label(axis, title, "")
    style.legend(axes[0])
    return figure
