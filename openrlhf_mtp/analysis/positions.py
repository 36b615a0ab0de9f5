"""Entropy of the policy and acceptance at the recorded positions (Bebop, arXiv 2606.12370, section 3).

At each recorded anchor and depth there are three numbers of the same two distributions: H(p), what a sampled draft is
accepted with (alpha = sum_v min(p, q)) and what a greedy draft would be accepted with (p at q's mode). A greedy draft
cannot be accepted more often than max p, which falls as H(p) rises; a sampled draft of a perfect head is always
accepted. So a steep negative slope is the mark of greedy drafts, or of a head trained for its mode, and the difference
of the two at the same position says where sampling pays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.analysis.regression import Mean, mean_of
from openrlhf_mtp.runlog.anchor_records import FILES, Records

Draft = Literal["sampled", "greedy"]
DRAFTS: tuple[Draft, ...] = ("sampled", "greedy")

NEEDED = FILES
"""The files that a figure of positions is drawn from, for its `needs`."""
ENTROPY_AXIS = "policy entropy at the position (nat)"
CLUSTER_NOTE = (
    "± is half a 95 % interval that counts responses (where they are few, blocks of 64 tokens) as independent, "
    "not tokens."
)

BINS = 12
FEWEST_IN_BIN = 20
"""A group of fewer positions is not shown: its mean says more about chance than about entropy."""

BLOCK = 64
"""Anchors of one response further apart than this count as independent where there are too few responses."""
ENOUGH_RESPONSES = 20

Array = NDArray[np.float64]


class Split(NamedTuple):
    """The origin of recorded positions: a short name for cells, a title for panels."""

    held_out: bool
    name: str
    title: str


SPLITS = (Split(False, "rollout", "rollout"), Split(True, "held-out", "held-out prompts"))


def recorded_splits(groups: Groups) -> list[Split]:
    """The splits that some group recorded."""
    return [one for one in SPLITS if any(group.recorded(held_out=one.held_out) for group in groups)]


@dataclass(frozen=True)
class Positions:
    """One depth's positions, all finite, of one step or several.

    Attributes:
        entropy: H(p), nat [n].
        sampled: acceptance of a sampled draft [n].
        greedy: acceptance of a greedy draft [n]; NaN where it was not recorded.
        cluster: positions that depend on each other have the same number [n].
    """

    entropy: Array
    sampled: Array
    greedy: Array
    cluster: NDArray[np.int64]

    def of(self, draft: Draft) -> Array:
        """Acceptance of one way of drafting [n]."""
        return self.sampled if draft == "sampled" else self.greedy


def positions(records: Iterable[Records], depth: int) -> Positions:
    """The counted positions of a depth, counted from 1, of all the given steps together.

    Clusters are responses; where a step holds fewer than `ENOUGH_RESPONSES` of them, or does not know them, blocks of
    `BLOCK` anchors within a response.
    """
    parts: list[tuple[Array, ...]] = [(np.empty(0),) * 4]
    clusters = 0
    for one in records:
        if depth > one.depths:
            continue
        group = _clusters(one)
        columns = [array[:, depth - 1].astype(np.float64) for array in (one.entropy, one.alpha, one.greedy)]
        counted = np.isfinite(columns[0]) & np.isfinite(columns[1])
        parts.append((*(column[counted] for column in columns), clusters + group[counted]))
        clusters += int(group.max(initial=-1)) + 1
    entropy, sampled, greedy, cluster = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Positions(entropy, sampled, greedy, cluster.astype(np.int64))


def _clusters(records: Records) -> NDArray[np.int64]:
    order = np.arange(len(records.alpha))
    response = np.zeros_like(order) if records.response is None else records.response.astype(np.int64)
    _, response = np.unique(response, return_inverse=True)
    if response.max(initial=-1) + 1 >= ENOUGH_RESPONSES:
        return response
    block = order // BLOCK
    return np.unique(np.stack([response, block]), axis=1, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True)
class Bin:
    """Positions of similar entropy: their mean entropy and their mean acceptance with its interval."""

    entropy: float
    acceptance: Mean


def binned(entropy: Array, values: Array, cluster: NDArray[np.int64]) -> list[Bin]:
    """Means over `BINS` equally wide groups of entropy, of those that hold enough positions."""
    if not len(entropy):
        return []
    group = np.minimum(BINS - 1, BINS * entropy / max(float(entropy.max()), 1e-9)).astype(int)
    bins = []
    for number in range(BINS):
        chosen = (group == number) & np.isfinite(values)
        mean = mean_of(values[chosen], cluster[chosen])
        if mean is not None and mean.points >= FEWEST_IN_BIN:
            bins.append(Bin(float(entropy[chosen].mean()), mean))
    return bins


def draw_bins(
    axes: Axes, bins: Sequence[Bin], shade: str, name: str, marker: str = "o", *, filled: bool = True
) -> None:
    """Draw each bin's mean acceptance with its interval."""
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
