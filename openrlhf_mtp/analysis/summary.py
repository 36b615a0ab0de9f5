"""The summary of a run: the first and last value of each metric, and the split of the time."""

import math
from dataclasses import asdict
from typing import Any

from openrlhf_mtp.analysis.lengths import lengths_of
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.rows import Row
from openrlhf_mtp.runlog.run import Run

TIME_PARTS: tuple[tuple[str, str], ...] = (
    ("rollout", metrics.TIME_ROLLOUT_S),
    ("experience", metrics.TIME_EXPERIENCE_S),
    ("training", metrics.TIME_TRAIN_S),
    ("sync", metrics.TIME_SYNC_S),
)
"""Parts of a step that do not overlap in synchronous mode, in the order they happen."""

OTHER = "other"
STEP_TIME = metrics.TIME_STEP_S


def summarize(run: Run) -> dict[str, Any]:
    """The content of `summary.json`.

    Returns:
        `steps`: rows of training (step 0, an evaluation before the first update, is not one);
        `wall_s`: sum of the steps' wall times;
        `time_share`: share of that time by part, as `time_parts` names them;
        `acceptance_length`: promised, replayed and measured side by side (`lengths.Lengths`), of a run that has
            all three;
        `not_finite`: metrics that were NaN or infinite in some step, with the first such step;
        `metrics`: for each metric its `first`, `last`, `min`, `max` and `mean` over the steps where it is finite.
    """
    names = sorted({name for row in run.rows for name in row} - {metrics.STEP})
    parts = time_parts(run)
    timed = sum(parts.values())
    lengths = lengths_of(run.rows)
    return {
        "steps": sum(row[metrics.STEP] > 0 for row in run.rows),
        "wall_s": math.fsum(seconds for seconds in run.series(STEP_TIME)[1] if math.isfinite(seconds)),
        "time_share": {part: seconds / timed for part, seconds in parts.items()} if timed > 0 else {},
        **({} if lengths is None else {"acceptance_length": asdict(lengths)}),
        "not_finite": {name: step for name in names if (step := first_broken_step(run, name)) is not None},
        "metrics": {name: extent for name in names if (extent := _extent(run, name))},
    }


def time_parts(run: Run) -> dict[str, float]:
    """Seconds of the whole run by part; `other` is what the parts leave of the steps' wall time.

    In asynchronous mode the parts overlap and `other` is 0. Empty if no step was split (the pre-RL stage).
    """
    totals: dict[str, float] = {}
    for row in run.rows:
        for part, seconds in row_parts(row).items():
            totals[part] = totals.get(part, 0.0) + seconds
    return totals


def row_parts(row: Row) -> dict[str, float]:
    """Seconds of one step by part, those that it measured, and `other`; empty for a step without parts."""
    parts = {part: row[name] for part, name in TIME_PARTS if math.isfinite(row.get(name, math.nan))}
    step = row.get(STEP_TIME, math.nan)
    if parts and math.isfinite(step):
        parts[OTHER] = max(0.0, step - sum(parts.values()))
    return parts


def first_broken_step(run: Run, name: str) -> int | None:
    """The first step at which a metric is NaN or infinite; None if it always was finite."""
    broken = [row[metrics.STEP] for row in run.rows if name in row and not math.isfinite(row[name])]
    return int(broken[0]) if broken else None


def _extent(run: Run, name: str) -> dict[str, float]:
    values = [value for value in run.series(name)[1] if math.isfinite(value)]
    if not values:
        return {}
    mean = math.fsum(values) / len(values)
    return {"first": values[0], "last": values[-1], "min": min(values), "max": max(values), "mean": mean}
