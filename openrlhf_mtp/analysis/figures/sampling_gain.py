"""The gain of a sampled draft over a greedy draft of the same head: by entropy, and over steps."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Group, Groups, together
from openrlhf_mtp.analysis.positions import (
    CLUSTER_NOTE,
    ENTROPY_AXIS,
    NEEDED,
    SPLITS,
    Bin,
    Positions,
    binned,
    draw_bins,
    positions,
    recorded_splits,
)
from openrlhf_mtp.analysis.regression import Mean, mean_of
from openrlhf_mtp.analysis.table import Table, signed
from openrlhf_mtp.runlog import metrics


@dataclass(frozen=True)
class Comparison:
    """Sampled against greedy drafts of the same head at the same positions.

    Attributes:
        sampled, greedy: mean acceptance.
        gain: mean of sampled - greedy.
        share: of positions, where a sampled draft is accepted more often.
        bins: the gain by entropy.
        crossing: entropy (nat) above which sampling wins, between the last group in which it does not and the next;
            None if it wins in every group, or not in the last one.
    """

    sampled: float
    greedy: float
    gain: Mean
    share: float
    bins: list[Bin]
    crossing: float | None

    @property
    def verdict(self) -> str:
        """The range in which sampling wins, in words."""
        if self.crossing is not None:
            return f"above {self.crossing:.2f} nat"
        if not self.bins:
            return "too few positions"
        winning = [one for one in self.bins if one.acceptance.value > 0]
        if len(winning) == len(self.bins):
            return "at every entropy"
        return f"not above {winning[-1].entropy:.2f} nat" if winning else "nowhere"


def compare(at: Positions) -> Comparison | None:
    """Compare the two ways of drafting; None if greedy acceptance was not recorded."""
    gain = at.sampled - at.greedy
    known = np.isfinite(gain)
    mean = mean_of(gain, at.cluster)
    if mean is None:
        return None
    bins = binned(at.entropy[known], gain[known], at.cluster[known])
    return Comparison(
        sampled=float(at.sampled[known].mean()),
        greedy=float(at.greedy[known].mean()),
        gain=mean,
        share=float((gain[known] > 0).mean()),
        bins=bins,
        crossing=_crossing(bins),
    )


def _crossing(bins: list[Bin]) -> float | None:
    """The entropy at which the gain crosses zero from below for the last time, interpolated between two groups."""
    losing = [number for number, one in enumerate(bins) if one.acceptance.value <= 0]
    if not losing or losing[-1] == len(bins) - 1:
        return None
    below, above = bins[losing[-1]], bins[losing[-1] + 1]
    share = -below.acceptance.value / (above.acceptance.value - below.acceptance.value)
    return below.entropy + share * (above.entropy - below.entropy)


def draw(groups: Groups) -> Figure | None:
    """Draw acceptance of a sampled draft minus that of a greedy one: by entropy, a panel a split, and over steps."""
    splits = [
        one
        for one in recorded_splits(groups)
        if any(compare(positions(group.recorded(held_out=one.held_out), 1)) for group in groups)
    ]
    logged = any(group.has(metrics.depth_metric(metrics.MTP_ALPHA_GREEDY, 1)) for group in groups)
    if not splits and not logged:
        return None
    figure, axes = style.panels(len(splits) + logged)
    for panel, split in zip(axes, splits, strict=False):
        for number, group in enumerate(groups):
            _gain_by_entropy(panel, group, number, held_out=split.held_out, alone=len(groups) == 1)
        style.label(panel, f"Sampled minus greedy, {split.title}", "acceptance gained", ENTROPY_AXIS)
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
        shade, name = _color_and_name(group, number, j, alone=alone)
        draw_bins(axes, compared.bins, shade, name)
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
        shade, name = _color_and_name(group, number, j, alone=alone)
        style.line(axes, list(steps), list(sampled - greedy), shade, name)


def _color_and_name(group: Group, number: int, j: int, *, alone: bool) -> tuple[str, str]:
    """By depth where there is one group, else by group."""
    if alone:
        return style.depth_color(j), f"depth {j}"
    return style.group_color(number), f"{group.label}, depth 1"


def table(groups: Groups) -> Table | None:
    """List, for every group, split and depth, where a sampled draft beats a greedy one."""
    rows = []
    for group in groups:
        for split in SPLITS:
            recorded = group.recorded(held_out=split.held_out)
            for j in range(1, max((one.depths for one in recorded), default=0) + 1):
                compared = compare(positions(recorded, j))
                if compared is not None:
                    gain = signed(compared.gain.value, compared.gain.half_width)
                    means = [f"{compared.sampled:.3f}", f"{compared.greedy:.3f}", gain]
                    where = [f"{compared.share:.0%}", compared.verdict]
                    rows.append([group.label, split.name, f"depth {j}", *means, *where])
    header = [
        "run",
        "data",
        "depth",
        "sampled",
        "greedy",
        "gain",
        "positions where it gains",
        "sampling wins",
    ]
    return Table(header, rows, CLUSTER_NOTE) if rows else None


FIGURE = FigureSpec(
    "sampling_gain",
    "Where sampling beats greedy drafting",
    "Acceptance of a sampled draft minus that of a greedy one of the same head at the same position. Above 0, "
    "rejection sampling is worth it; dotted, the entropy above which it is at depth 1.",
    (metrics.depth_metric(metrics.MTP_ALPHA_GREEDY, 1), NEEDED + " with greedy acceptance"),
    draw,
    table,
)
