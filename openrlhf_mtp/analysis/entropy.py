"""Entropy of the policy against acceptance, position by position (Bebop, arXiv 2606.12370, section 3).

At each recorded anchor and depth there are three numbers of the same two distributions: H(p), what a sampled draft is
accepted with (alpha = sum_v min(p, q)) and what a greedy draft would be accepted with (p at q's mode). A greedy draft
cannot be accepted more often than max p, which falls as H(p) rises; a sampled draft of a perfect head is always
accepted. So a steep negative slope is the mark of greedy drafts, or of a head trained for its mode, and the difference
of the two at the same position says where sampling pays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openrlhf_mtp.analysis.regression import Line, Mean, fit_line, mean_of
from openrlhf_mtp.runlog.anchor_records import Records

Draft = Literal["sampled", "greedy"]
DRAFTS: tuple[Draft, ...] = ("sampled", "greedy")

BINS = 12
FEWEST_IN_BIN = 20
"""A group of fewer positions is not shown: its mean says more about chance than about entropy."""

BLOCK = 64
"""Anchors of one response further apart than this count as independent where there are too few responses."""
ENOUGH_RESPONSES = 20

Array = NDArray[np.float64]


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
        """Where sampling wins, in words."""
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
    """Where the gain crosses zero from below for the last time, by a straight line between two groups."""
    losing = [number for number, one in enumerate(bins) if one.acceptance.value <= 0]
    if not losing or losing[-1] == len(bins) - 1:
        return None
    below, above = bins[losing[-1]], bins[losing[-1] + 1]
    share = -below.acceptance.value / (above.acceptance.value - below.acceptance.value)
    return below.entropy + share * (above.entropy - below.entropy)


@dataclass(frozen=True)
class EntropySlope:
    """The line of one depth and one way of drafting; None where it cannot be told."""

    depth: int
    draft: Draft
    line: Line | None
    acceptance: float


def slopes(records: Sequence[Records]) -> list[EntropySlope]:
    """The line of each depth, for sampled drafts and (where recorded) greedy ones, over all the given steps."""
    found = []
    for depth in range(1, max((one.depths for one in records), default=0) + 1):
        at = positions(records, depth)
        for draft in DRAFTS:
            values = at.of(draft)
            if np.isfinite(values).any():
                line = fit_line(at.entropy, values, at.cluster)
                found.append(EntropySlope(depth, draft, line, float(np.nanmean(values))))
    return found
