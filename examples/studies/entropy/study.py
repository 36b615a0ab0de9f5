"""Study 2: entropy against acceptance.

    python examples/studies/entropy/study.py            no runs of its own: after study 1, a minute
    python examples/studies/entropy/study.py --smoke    two minutes, most of them study 1's smoke form

Heads that CE, TV and e2e TV trained in study 1, anchor by anchor on held-out responses: how acceptance falls with the
entropy of the policy, by the slope of a line fitted to every anchor and depth, for sampled and for greedy drafts.
Twice, because entropy and the kind of token are bound together in this task: over all tokens, and over those alone
where a move is chosen, which is what free choice is here. Hardware: one CPU core. Result: README.md beside this file.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import acceptance, plots
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


def points(measured: Acceptance, way: str, *, moves_only: bool) -> Points:
    """Entropy, acceptance and response of every anchor and depth that counts."""
    counted = ~np.isnan(measured.sampled)
    if moves_only:
        counted &= np.isin(measured.tokens, move_tokens())
    response = np.broadcast_to(measured.response[:, None], counted.shape)
    return measured.entropy[counted], vars(measured)[way][counted], response[counted]


def measure(place: Place) -> Values:
    """Slopes (per nat), intercepts, and the range of entropy that they were fitted over."""
    measured = acceptance.of_run(place)
    values: Values = {}
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


def binned(place: Place, way: str) -> plots.Series:
    """Mean acceptance in bins of equal width in entropy, at the bins' mean entropy, all tokens."""
    entropy, accepted, _ = points(acceptance.of_run(place), way, moves_only=False)
    edges = np.linspace(0.0, np.quantile(entropy, 0.99), BINS + 1)
    where = np.digitize(entropy, edges[1:-1])
    filled = [number for number in range(BINS) if (where == number).sum() >= 20]
    return (
        [float(entropy[where == number].mean()) for number in filled],
        [float(accepted[where == number].mean()) for number in filled],
    )


def figure(places: Mapping[str, Sequence[Place]]) -> Figure:
    """Acceptance against entropy in bins, a line a head and seed."""
    figure, axes = style.panels(2)
    for axis, way in zip(axes, ("sampled", "greedy"), strict=True):
        for number, (arm, runs) in enumerate(places.items()):
            for run in runs:
                axis.plot(
                    *binned(run, way), "o-", color=plots.COLORS[number], markersize=3, linewidth=1, label=arm
                )
        style.label(axis, f"acceptance, {way} drafts", "", x="entropy of the policy (nat)")
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
