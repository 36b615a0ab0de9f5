"""Rows of `metrics.jsonl`: one step's numbers, one JSON object a line.

A number that is not finite is stored as `null` (JSON has no NaN) and read back as NaN, so a missing metric and a broken
one stay apart.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from openrlhf_mtp.runlog import metrics

Row = dict[str, float]


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """Rows of a `metrics.jsonl` and a warning for each line that is not a row (a cut-off last line, for example)."""
    if not path.exists():
        return [], [f"{path.name} is missing"]
    rows: list[Row] = []
    warnings: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = {name: math.nan if v is None else float(v) for name, v in json.loads(line).items()}
            row[metrics.STEP] = int(row[metrics.STEP])
        except (ValueError, AttributeError, TypeError, KeyError, OverflowError):
            warnings.append(f"{path.name} line {number} is not a step and was left out")
        else:
            rows.append(row)
    if not rows:
        warnings.append(f"{path.name} holds no step")
    return rows, warnings


def encoded(row: Mapping[str, float]) -> str:
    """One line of `metrics.jsonl`; the step is a whole number and comes first."""
    numbers = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps({metrics.STEP: None, **numbers, metrics.STEP: int(row[metrics.STEP])}) + "\n"
