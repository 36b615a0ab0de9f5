"""What the two studies with RL measure, from the rows of their runs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from harness import plots
from harness.study import Column, Place, Values
from openrlhf_mtp.analysis.figures.drift import series_of, split_of
from openrlhf_mtp.analysis.lengths import lengths_of
from openrlhf_mtp.analysis.regression import fit_line
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.run import Run, read_run

PROMPTS_A_STEP = 8
EDGE = 10
"""Steps at either end whose mean is "first" and "last": one step's reward is the mean of 64 responses, and noisy."""

SMOKE_SETTINGS = (
    "data.max_samples=16",
    "rollout.n_samples_per_prompt=4",
    "rollout.micro_batch_size=32",
    "train.batch_size=8",
    "train.micro_batch_size=8",
    "rollout.max_new_tokens=28",
)

METRICS = {
    "reward": metrics.POLICY_REWARD,
    "entropy": metrics.POLICY_ENTROPY,
    "length": metrics.SPEC_MEAN_ACCEPTANCE_LENGTH,
    "accepted": metrics.SPEC_ACCEPTANCE_RATE,
    "promised": metrics.MTP_EXPECTED_LENGTH,
    "replayed": metrics.MTP_REPLAYED_LENGTH,
    "slow": metrics.SPEC_SLOW_RESPONSES,
    "p10": metrics.SPEC_ACCEPTANCE_LENGTH_P10,
    "replayed_p10": metrics.MTP_REPLAYED_LENGTH_P10,
    **{f"quarter_{q}": metrics.quarter_metric(metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, q) for q in (1, 2, 3, 4)},
    "coefficient": metrics.MTP_COEFFICIENT,
    "alignment": metrics.depth_metric(metrics.OCC_ALIGNMENT, 1),
    "magnitude": metrics.depth_metric(metrics.OCC_MAGNITUDE, 1),
    "step_s": metrics.TIME_STEP_S,
}

COLUMNS = (
    Column("length/first", "acceptance length, first 10 steps"),
    Column("length/last", "acceptance length, last 10 steps"),
    Column("length/mean", "acceptance length, all steps"),
    Column("promised/mean", "promised by the trainer"),
    Column("replayed/mean", "replayed by the trainer"),
    Column("gap/mean", "replayed minus measured", 4),
    Column("gap/error", "its standard error", 4),
    Column("slow/mean", "responses below 1.5 tokens", 4),
    Column("p10/mean", "a tenth of the responses below"),
    Column("reward/first", "reward, first 10 steps"),
    Column("reward/last", "reward, last 10 steps"),
    Column("entropy/first", "entropy, first 10 steps"),
    Column("entropy/last", "entropy, last 10 steps"),
    Column("between_steps/slope", "tokens of length per nat, between steps", 2),
    Column("drift/change", "change of length"),
    Column("drift/by_entropy", "by entropy"),
    Column("drift/mismatch", "mismatch"),
    Column("reward/mean", "reward, all steps"),
    Column("eval/last", "held-out reward at the end"),
    Column("coefficient/mean", "coefficient", 4),
    Column("alignment/mean", "⟨δ_RL δ_MTP⟩", 6),
    Column("magnitude/mean", "⟨δ_MTP²⟩", 5),
)
"""How the tables head the values of `measure`."""
ACCEPTANCE = (
    "length/mean",
    "promised/mean",
    "replayed/mean",
    "gap/mean",
    "gap/error",
    "slow/mean",
    "p10/mean",
)
"""Values that set the engines' acceptance beside the trainer's, over all steps."""


def columns(*names: str) -> list[Column]:
    """The columns of a study, by the names of their values."""
    known = {column.name: column for column in COLUMNS}
    return [known[name] for name in names]


def measure(place: Place) -> Values:
    """First, last and mean of each metric that the run has, means of its first and last third of steps, the held-out
    reward after the last step, replayed minus measured acceptance length with its standard error (`analysis.lengths`),
    what changed the length since the early phase, if the head came with a temperature sweep (`analysis.figures.drift`),
    and the slope of length over entropy between the run's steps."""
    values: Values = {}
    for name, metric in METRICS.items():
        _, series = plots.series(place, metric)
        if series:
            values[f"{name}/first"] = float(np.nanmean(series[:EDGE]))
            values[f"{name}/last"] = float(np.nanmean(series[-EDGE:]))
            values[f"{name}/mean"] = float(np.nanmean(series))
            third = max(1, len(series) // 3)
            values[f"{name}/early"] = float(np.nanmean(series[:third]))
            values[f"{name}/late"] = float(np.nanmean(series[-third:]))
    run = read_run(place.folder)
    _, held_out = run.series(metrics.EVAL_ACCURACY)
    values |= {"eval/first": held_out[0], "eval/last": held_out[-1]}
    lengths = lengths_of(run.rows)
    if lengths is not None:
        values |= {"gap/mean": lengths.gap, "gap/error": lengths.gap_error}
    split = split_of(run)
    if split is not None and split.slope is not None:
        parts = {"change": split.change, "by_entropy": split.by_entropy, "mismatch": split.mismatch}
        values |= {f"drift/{name}": split.at_the_end(part) for name, part in parts.items()}
    slope = between_steps(run)
    return values if slope is None else values | {"between_steps/slope": slope}


def between_steps(run: Run) -> float | None:
    """Tokens of the engines' acceptance length per nat, one point an RL step, as Bebop has it.

    The policy moves from step to step, so this holds more than the effect of entropy (`analysis.figures.drift`). None
    without drafts, or for a run too short for a line.
    """
    series = series_of(run)
    if series is None:
        return None
    _, entropy, length = series
    line = fit_line(entropy, length)
    return None if line is None else line.slope


def _series(metric: str) -> Callable[[Place], plots.Series]:
    return partial(plots.series, metric=metric)


def drift_figure(places: Mapping[str, Sequence[Place]]) -> Figure:
    """Acceptance length, reward and entropy over the steps."""
    return plots.curves(
        places,
        {
            "acceptance length (engine)": _series(metrics.SPEC_MEAN_ACCEPTANCE_LENGTH),
            "reward": _series(metrics.POLICY_REWARD),
            "entropy of the policy (nat)": _series(metrics.POLICY_ENTROPY),
        },
    )


def regimes_figure(places: Mapping[str, Sequence[Place]]) -> Figure:
    """Reward and acceptance length, and OCC's coefficient with its two terms, over the steps."""
    return plots.curves(
        places,
        {
            "reward": _series(metrics.POLICY_REWARD),
            "acceptance length (engine)": _series(metrics.SPEC_MEAN_ACCEPTANCE_LENGTH),
            "entropy of the policy (nat)": _series(metrics.POLICY_ENTROPY),
            "coefficient": _series(metrics.MTP_COEFFICIENT),
            "mean of δ_RL δ_MTP, depth 1": _series(metrics.depth_metric(metrics.OCC_ALIGNMENT, 1)),
            "mean of δ_MTP², depth 1": _series(metrics.depth_metric(metrics.OCC_MAGNITUDE, 1)),
        },
    )
