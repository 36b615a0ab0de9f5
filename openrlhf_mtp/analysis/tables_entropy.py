"""The tables beside the figures of entropy against acceptance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openrlhf_mtp.analysis.drift import Drift, split_drift
from openrlhf_mtp.analysis.entropy import compare, positions, slopes
from openrlhf_mtp.analysis.groups import Group, together
from openrlhf_mtp.analysis.regression import Line, mean_of
from openrlhf_mtp.analysis.table import Table, number, signed
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.run_folder import Run

Groups = Sequence[Group]
SPLITS = ((False, "rollout"), (True, "held-out"))

CLUSTER_NOTE = (
    "± is half a 95 % interval that counts responses (where they are few, blocks of 64 tokens) as independent, "
    "not tokens."
)


def slope_table(groups: Groups) -> Table | None:
    """The fitted line of every group, split, depth and way of drafting."""
    rows = []
    for group in groups:
        for held_out, split in SPLITS:
            recorded = group.recorded(held_out=held_out)
            for one in slopes(recorded):
                head = [group.label, split, f"depth {one.depth}", one.draft, f"{one.acceptance:.3f}"]
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


def gain_table(groups: Groups) -> Table | None:
    """Where a sampled draft beats a greedy one of the same head."""
    rows = []
    for group in groups:
        for held_out, split in SPLITS:
            recorded = group.recorded(held_out=held_out)
            for j in range(1, max((one.depths for one in recorded), default=0) + 1):
                compared = compare(positions(recorded, j))
                if compared is not None:
                    gain = signed(compared.gain.value, compared.gain.half_width)
                    means = [f"{compared.sampled:.3f}", f"{compared.greedy:.3f}", gain]
                    where = [f"{compared.share:.0%}", compared.verdict]
                    rows.append([group.label, split, f"depth {j}", *means, *where])
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


def drift_series(source: Group | Run) -> NDArray[Any] | None:
    """Steps, entropy and overlap at depth 1 of an RL run, as its trainer measured them on the same anchors [3, n].

    None for a run that has no reward (nothing drifts while only the head is trained) or no head.
    """
    group = source if isinstance(source, Group) else Group(source.name, (source,))
    names = (metrics.MTP_ENTROPY, metrics.depth_metric(metrics.MTP_ALPHA, 1))
    if not group.has(metrics.POLICY_REWARD) or not all(group.has(name) for name in names):
        return None
    bands = [group.band(name) for name in names]
    return together([(band.steps, band.mean) for band in bands])


def drift_of(source: Group | Run) -> Drift | None:
    """The drift split of a run, or of the mean of a group; None if it has none."""
    series = drift_series(source)
    return None if series is None else split_drift(list(series[0]), series[1], series[2])


def drift_table(groups: Groups) -> Table | None:
    """What the last steps lost or won since the early phase, by cause; a group's cells are means over its runs."""
    rows = []
    for group in groups:
        splits = [split for run in group.runs if (split := drift_of(run)) is not None]
        if splits:
            rows.append(_drift_row(group, splits))
    header = ["run", "slope b per nat", "change", "by entropy", "mismatch", "early phase"]
    note = (
        "Means over the last steps, as many as the early phase has. ± is half a 95 % interval: of b over blocks of "
        "early steps for one run, over runs (Student's t) for several."
    )
    return Table(header, rows, note) if rows else None


def _drift_row(group: Group, splits: list[Drift]) -> list[str]:
    early = f"first {splits[0].early} steps"
    if len(splits) == 1:
        (split,) = splits
        change = signed(split.at_the_end(split.change))
        if split.slope is None:
            return [group.label, split.why_not, change, "–", "–", early]
        half = split.slope.slope_high - split.slope.slope
        entropy = split.at_the_end(split.by_entropy)
        doubt = abs(entropy / split.slope.slope) * half if split.slope.slope else float("nan")
        parts = [signed(entropy, doubt), signed(split.at_the_end(split.mismatch), doubt)]
        return [group.label, signed(split.slope.slope, half), change, *parts, early]
    columns: list[list[float]] = [
        [split.slope.slope if split.slope else np.nan for split in splits],
        [split.at_the_end(split.change) for split in splits],
        [split.at_the_end(split.by_entropy) for split in splits],
        [split.at_the_end(split.mismatch) for split in splits],
    ]
    means = [mean_of(column) for column in columns]
    return [
        group.label,
        *("–" if mean is None else signed(mean.value, mean.half_width) for mean in means),
        early,
    ]
