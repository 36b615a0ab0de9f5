"""Why the acceptance length changed over a run: the policy's entropy, or a head that no longer fits.

    L_t - L_0 = b (H_t - H_0) + residual_t           Bebop, arXiv 2606.12370, equation 16

RL lowers or raises the policy's entropy, and the acceptance length follows it without any fault of the head: that is
the first term. The rest is mismatch: below zero, the head lags behind the policy; above, it has learned. L_0 and H_0
are the means of the run's early phase, because one step is noise (so the residual of the early phase is zero on
average).

The slope b comes from a temperature sweep of the policy and head that the run started with, and not from the run: over
the steps of RL the policy moves together with its entropy, so that a slope fitted to them blames entropy for whatever
happened at the same time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Group, Groups, together
from openrlhf_mtp.analysis.regression import mean_of
from openrlhf_mtp.analysis.table import Table, signed
from openrlhf_mtp.analysis.temperature_slope import Slope, mean_slope, slope_of
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.run import Run

EARLY_SHARE, EARLY_FEWEST = 0.2, 10
"""The early phase: a fifth of the run's steps, ten at least."""
UNIT = "tokens per target forward"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """The split of a run's change of acceptance length; arrays over the run's steps [n], in tokens.

    Attributes:
        steps: the steps.
        change: L_t - L_0.
        by_entropy: b (H_t - H_0); None without b.
        mismatch: the residual; None without b.
        slope: b with its interval; None if it is not known, for the reason in `why_not`.
        why_not: why there is no split, as a sentence; empty if there is one.
        early: number of steps in the early phase, the first of the run.
    """

    steps: Array
    change: Array
    by_entropy: Array | None
    mismatch: Array | None
    slope: Slope | None
    why_not: str
    early: int

    def at_the_end(self, values: Array | None) -> float:
        """Mean of a part over the last steps, as many as the early phase has or as follow it; NaN without a split."""
        last = min(self.early, len(self.steps) - self.early)
        return math.nan if values is None else float(values[-last:].mean())

    @property
    def doubt(self) -> float:
        """Half the 95 % interval that b's leaves to either part at the end; NaN without b."""
        if self.slope is None or not self.slope.value:
            return math.nan
        return abs(self.at_the_end(self.by_entropy) / self.slope.value) * self.slope.half_width


def early_steps(count: int) -> int:
    """The number of steps in a run's early phase."""
    return max(EARLY_FEWEST, round(EARLY_SHARE * count))


def split_drift(
    steps: Sequence[float],
    entropy: ArrayLike,
    length: ArrayLike,
    slope: Slope | None,
    why_not: str = "",
    early: int | None = None,
) -> Drift | None:
    """Split the change of acceptance length over a run; steps with a value that is not finite are left out.

    Args:
        steps: [n].
        entropy: mean entropy of the policy at each step, nat [n].
        length: acceptance length of each step, tokens [n].
        slope: b of the head and policy that the run started with.
        why_not: why there is no slope.
        early: steps of the early phase; by default a fifth of the run and at least ten.

    Returns:
        None if the run is no longer than its early phase, so that there is no drift yet.
    """
    table: NDArray[Any] = np.array([steps, entropy, length], dtype=np.float64)
    at, h, tokens = table[:, np.isfinite(table).all(axis=0)]
    early = early_steps(len(at)) if early is None else early
    if len(at) <= early:
        return None
    change = tokens - tokens[:early].mean()
    if slope is None:
        return Drift(at, change, None, None, None, why_not, early)
    by_entropy = slope.value * (h - h[:early].mean())
    return Drift(at, change, by_entropy, change - by_entropy, slope, "", early)


def series_of(source: Group | Run) -> NDArray[Any] | None:
    """Steps, the policy's entropy and the engines' acceptance length of an RL run [3, n].

    None for a run that has no reward (nothing drifts while only the head is trained), no head or no drafts.
    """
    group = source if isinstance(source, Group) else Group(source.name, (source,))
    names = (metrics.MTP_ENTROPY, metrics.SPEC_MEAN_ACCEPTANCE_LENGTH)
    if not group.has(metrics.POLICY_REWARD) or not all(group.has(name) for name in names):
        return None
    bands = [group.band(name) for name in names]
    return together([(band.steps, band.mean) for band in bands])


def split_of(source: Group | Run) -> Drift | None:
    """The drift split of a run, or of the mean of a group; None if it has none."""
    series = series_of(source)
    if series is None:
        return None
    found = [slope_of(run.temperatures) for run in (source.runs if isinstance(source, Group) else (source,))]
    missing = next((why_not for slope, why_not in found if slope is None), "")
    slope = None if missing else mean_slope([slope for slope, _ in found if slope is not None])
    return split_drift(list(series[0]), series[1], series[2], slope, missing)


def draw(groups: Groups) -> Figure | None:
    """Draw the change of acceptance length over a run, split into entropy's part and the head's own."""
    found = {group.label: (group, split) for group in groups if (split := split_of(group)) is not None}
    if not found:
        return None
    return _alone(*next(iter(found.values()))) if len(found) == 1 else _beside(found)


def _alone(group: Group, split: Drift) -> Figure:
    figure, axes = style.panels(2)
    series = series_of(group)
    assert series is not None, "a run with a split has the series it was made of"
    _, entropy, length = series
    shades = [to_rgba(style.group_color(0), alpha) for alpha in np.linspace(0.3, 1.0, len(entropy))]
    axes[0].scatter(entropy, length, s=16, c=shades, linewidths=0, label="a step (later ones darker)")
    if split.slope is not None:
        ends = np.array([np.nanmin(entropy), np.nanmax(entropy)])
        start = [float(np.nanmean(values[: split.early])) for values in (entropy, length)]
        line = start[1] + split.slope.value * (ends - start[0])
        name = f"b = {split.slope.value:+.2f} tokens per nat, by temperature"
        axes[0].plot(ends, line, color=style.group_color(1), linewidth=1.2, label=name)
    style.label(axes[0], "Entropy and length of each step", UNIT, "policy entropy (nat)")
    _parts(axes[1], split)
    style.label(axes[1], "Change since the early phase", UNIT)
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
            style.line(axes, list(split.steps), list(values), style.group_color(number), name)
    axes.axvspan(
        float(split.steps[0]), float(split.steps[split.early - 1]), color="#f0f0f0", zorder=0, label="early"
    )
    style.zero(axes)


def _beside(found: dict[str, tuple[Group, Drift]]) -> Figure:
    figure, axes = style.panels(3)
    titles = ("Measured change", "Entropy's part", "Mismatch: the head's own part")
    for number, (name, (_, split)) in enumerate(found.items()):
        parts: tuple[NDArray[np.float64] | None, ...] = (split.change, split.by_entropy, split.mismatch)
        for panel, values in zip(axes, parts, strict=True):
            if values is not None:
                style.line(panel, list(split.steps), list(values), style.group_color(number), name)
    for panel, title in zip(axes, titles, strict=True):
        style.zero(panel)
        style.label(panel, title, UNIT)
        style.legend(panel)
    return figure


def table(groups: Groups) -> Table | None:
    """List what the last steps lost or won since the early phase, by cause; a group's cells are means over its runs."""
    rows = []
    for group in groups:
        splits = [split for run in group.runs if (split := split_of(run)) is not None]
        if splits:
            rows.append(_row(group, splits))
    header = ["run", "slope b, tokens per nat", "change", "by entropy", "mismatch", "early phase"]
    note = (
        "Tokens of acceptance length, means over the last steps, as many as the early phase has. ± is half a 95 % "
        "interval: of b over responses of the temperature sweep for one run, over runs (Student's t) for several."
    )
    return Table(header, rows, note) if rows else None


def _row(group: Group, splits: list[Drift]) -> list[str]:
    early = f"first {splits[0].early} steps"
    if len(splits) == 1:
        (split,) = splits
        change = signed(split.at_the_end(split.change))
        if split.slope is None:
            return [group.label, split.why_not, change, "–", "–", early]
        parts = [signed(split.at_the_end(part), split.doubt) for part in (split.by_entropy, split.mismatch)]
        return [group.label, signed(split.slope.value, split.slope.half_width), change, *parts, early]
    columns: list[list[float]] = [
        [split.slope.value if split.slope else np.nan for split in splits],
        [split.at_the_end(split.change) for split in splits],
        [split.at_the_end(split.by_entropy) for split in splits],
        [split.at_the_end(split.mismatch) for split in splits],
    ]
    means = [mean_of(column) for column in columns]
    cells = ["–" if mean is None else signed(mean.value, mean.half_width) for mean in means]
    unknown = next((split.why_not for split in splits if split.why_not), "")
    return [group.label, cells[0] if means[0] else unknown, *cells[1:], early]


FIGURE = FigureSpec(
    "drift",
    "Drift: entropy or mismatch",
    "Change of the engines' acceptance length since the early phase, split into what the policy's entropy explains "
    "(slope b, from a temperature sweep of the policy and head before RL) and the rest. A mismatch below 0 is a head "
    "that falls behind the policy.",
    (f"{metrics.MTP_ENTROPY} in an RL run with drafts that is longer than its early phase",),
    draw,
    table,
)
