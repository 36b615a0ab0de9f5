"""Every step of every run, small enough to commit: what a mean over the last ten steps hides.

A run's `metrics.jsonl` becomes `curves/ARM/seed_S.csv`: a row a step, a column a metric, four significant digits.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.study import Place
from openrlhf_mtp.runlog.run import read_run

LARGEST = 100_000
"""Bytes of a file; a longer run keeps every second step, or every fourth, and so on."""

STEP = "step"


def write_curves(out: Path, places: Mapping[str, Sequence[Place]]) -> None:
    """Write the curves of all runs into `out`."""
    for runs in places.values():
        for place in runs:
            path = out / place.arm / f"seed_{place.seed}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(curves(read_run(place.folder).rows), encoding="utf-8")


def curves(rows: Sequence[Mapping[str, float]], largest: int = LARGEST) -> str:
    """Rows of numbers as CSV of at most `largest` bytes; an empty cell is a metric that the step does not have.

    >>> print(curves([{"step": 1, "mtp/loss": 0.123456}, {"step": 2}]), end="")
    step,mtp/loss
    1,0.1235
    2,
    """
    names = [STEP, *sorted({name for row in rows for name in row} - {STEP})]
    kept = list(rows)
    while len(text := _csv(names, kept)) > largest and len(kept) > 1:
        kept = kept[::2]
    return text


def _csv(names: Sequence[str], rows: Sequence[Mapping[str, float]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_short(row[name]) if name in row else "" for name in names] for row in rows])
    return out.getvalue()


def _short(value: float) -> str:
    """Four significant digits, and a whole number as one."""
    whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
    return str(int(value)) if whole else f"{value:.4g}"
