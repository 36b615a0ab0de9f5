"""Study 2: entropy against acceptance.

    python examples/studies/entropy/study.py            no runs of its own: after study 1, ten minutes
    python examples/studies/entropy/study.py --smoke    two minutes, most of them study 1's smoke form

Heads that CE, TV and e2e TV trained in study 1: how the acceptance length falls with the entropy of the policy, in
tokens per nat as Bebop has it, for sampled and for greedy drafts. By temperature: policy and head held still at five
temperatures, and the walk of an engine through responses sampled at each. Over anchors: a line through the expected
lengths of all anchors of the held-out responses at one temperature. Last the overlap of a single depth, per nat, by a
line through all anchors and depths; twice, because entropy and the kind of token are bound together in this task: over
all tokens, and over those alone where a move is chosen, which is what free choice is here. Hardware: one CPU core.
Result: README.md beside this file.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import acceptance, plots, temperatures
from harness.acceptance import Acceptance
from harness.main import main
from harness.study import Column, Contrast, Place, Study, Values
from objectives.study import STUDY as OBJECTIVES
from task.tokens import move_tokens

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.regression import fit_line

HEADS = ("ce", "tv", "e2e_tv")
BINS = 8
Points = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def points(measured: Acceptance, way: str, *, moves_only: bool = False) -> Points:
    """Entropy, acceptance and response of every anchor and depth that counts."""
    counted = ~np.isnan(measured.sampled)
    if moves_only:
        counted &= np.isin(measured.tokens, move_tokens())
    response = np.broadcast_to(measured.response[:, None], counted.shape)
    return measured.entropy[counted], vars(measured)[way][counted], response[counted]


def lengths(measured: Acceptance, way: str) -> Points:
    """Mean entropy over its depths, expected length and response of every anchor that has all depths."""
    whole = ~np.isnan(measured.sampled).any(1)
    length = 1.0 + acceptance.expected_accepted(vars(measured)[way][whole])
    return measured.entropy[whole].mean(1), length, measured.response[whole]


def measure(place: Place) -> Values:
    """Slopes (tokens of length per nat; overlap per nat), intercepts, and the range of entropy of the fit."""
    measured = acceptance.of_run(place)
    values: Values = {}
    for way in ("sampled", "greedy"):
        values |= {f"length/{way}/{key}": value for key, value in slopes_of_length(measured, way).items()}
    values |= {f"by_temperature/{name}": value for name, value in temperatures.slopes(place).items()}
    for tokens, moves_only in (("all", False), ("moves", True)):
        for way in ("sampled", "greedy"):
            entropy, accepted, response = points(measured, way, moves_only=moves_only)
            line = fit_line(entropy, accepted, response)
            values[f"{tokens}/{way}/slope"] = np.nan if line is None else line.slope
            values[f"{tokens}/{way}/intercept"] = np.nan if line is None else line.intercept
            values[f"{tokens}/{way}/mean"] = float(accepted.mean())
        low, high = np.quantile(entropy, (0.05, 0.95))
        values |= {f"{tokens}/entropy_low": float(low), f"{tokens}/entropy_high": float(high)}
    return values


def slopes_of_length(measured: Acceptance, way: str) -> Values:
    """Tokens of acceptance length per nat, in two ways that need not agree where acceptance is no straight line.

    `slope`: of a line through the anchors' lengths. `chained`: the slope of the overlap times dE/d alpha = sum_j j
    alpha^(j-1) at the mean overlap: what a shift of all depths' entropies would do if it moved all of them alike.
    """
    entropy, length, response = lengths(measured, way)
    line = fit_line(entropy, length, response)
    overlap = vars(measured)[way]
    each = fit_line(*points(measured, way))
    if line is None or each is None:  # the two-minute form may be too short for a line
        return {"slope": np.nan, "intercept": np.nan, "chained": np.nan}
    alpha = float(np.nanmean(overlap))
    derivative = sum(j * alpha ** (j - 1) for j in range(1, overlap.shape[1] + 1))
    return {"slope": line.slope, "intercept": line.intercept, "chained": derivative * each.slope}


def binned(found: Points) -> plots.Series:
    """Means in bins of equal width in entropy, at the bins' mean entropy."""
    entropy, accepted, _ = found
    edges = np.linspace(0.0, np.quantile(entropy, 0.99), BINS + 1)
    where = np.digitize(entropy, edges[1:-1])
    filled = [number for number in range(BINS) if (where == number).sum() >= 20]
    return (
        [float(entropy[where == number].mean()) for number in filled],
        [float(accepted[where == number].mean()) for number in filled],
    )


def figure(places: Mapping[str, Sequence[Place]]) -> Figure:
    """Length against entropy (above) and overlap against entropy (below) in bins, a line a head and seed."""
    figure, axes = style.panels(4)
    for number, (arm, runs) in enumerate(places.items()):
        for run in runs:
            measured = acceptance.of_run(run)
            for axis, (read, way) in zip(
                axes, product((lengths, points), ("sampled", "greedy")), strict=True
            ):
                shown = binned(read(measured, way))
                axis.plot(*shown, "o-", color=plots.COLORS[number], markersize=3, linewidth=1, label=arm)
    for axis, (unit, way) in zip(
        axes, product(("length (tokens)", "overlap"), ("sampled", "greedy")), strict=True
    ):
        style.label(axis, f"{unit}, {way} drafts", "", x="entropy of the policy (nat)")
        if unit == "overlap":
            style.unit_interval(axis)
    style.legend(axes[0])
    return figure


STUDY = Study(
    name="entropy",
    question="How does acceptance fall with the policy's entropy, for heads of different objectives?",
    command="pretrain",
    runs_of=OBJECTIVES,
    arms=[arm for arm in OBJECTIVES.arms if arm.name in HEADS],
    measure=measure,
    figure=figure,
    columns=[
        Column("by_temperature/sampled/slope", "tokens per nat by temperature, sampled", 2),
        Column("by_temperature/greedy/slope", "tokens per nat by temperature, greedy", 2),
        Column("length/sampled/slope", "tokens per nat over anchors, sampled", 2),
        Column("length/greedy/slope", "tokens per nat over anchors, greedy", 2),
        Column("length/sampled/chained", "the same from the overlap's slope, sampled", 2),
        Column("length/greedy/chained", "the same from the overlap's slope, greedy", 2),
        Column("all/sampled/slope", "slope, sampled, all tokens"),
        Column("all/greedy/slope", "slope, greedy, all tokens"),
        Column("moves/sampled/slope", "slope, sampled, moves"),
        Column("moves/greedy/slope", "slope, greedy, moves"),
        Column("all/sampled/mean", "mean, sampled, all"),
        Column("moves/sampled/mean", "mean, sampled, moves"),
        Column("all/entropy_low", "entropy, 5 %"),
        Column("all/entropy_high", "entropy, 95 %"),
    ],
    contrasts=[
        Contrast("e2e_tv", "ce", "by_temperature/sampled/slope", role="primary", expected="+", least=0.1),
        Contrast("tv", "ce", "by_temperature/sampled/slope", expected="+", least=0.1),
        Contrast("e2e_tv", "ce", "length/sampled/slope", expected="+", least=0.1),
        Contrast("e2e_tv", "ce", "length/greedy/slope", least=0.1),
        *(
            Contrast(arm, "ce", name, ratio)
            for arm in ("tv", "e2e_tv")
            for name in ("all/sampled/slope", "moves/sampled/slope")
            for ratio in (False, True)
        ),
        Contrast("e2e_tv", "ce", "moves/sampled/mean"),
        Contrast("e2e_tv", "ce", "all/greedy/slope"),
    ],
    smoke_arms=("ce", "e2e_tv"),
    smoke_settings=OBJECTIVES.smoke_settings,
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
