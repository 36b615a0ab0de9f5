"""When the second stage may begin, and when it stops: plan.md of the gradient stage, as code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from occ_gradients.records import read_record

FIRST_LOOK, ALL_SEEDS = (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6, 7, 8)
EARLY, LAST = 0.01, 0.045
"""Levels of the two looks at the primary contrast: together below 5 %, since the second holds the first's seeds."""
EQUIVALENT = 0.05


def why_not(gradients: Path) -> str | None:
    """The reason why the second stage must not begin, from the result of the gradient stage; None if it may."""
    if not gradients.exists():
        return f"{gradients} is missing: run examples/studies/occ_gradients/study.py first"
    result = read_record(gradients)
    if result["missing"]:
        return f"{len(result['missing'])} checkpoints are not measured: run examples/studies/occ_gradients/study.py"
    stage = result["second_stage"]
    return None if stage["due"] else f"not due by its plan: {stage['reason']}"


Decision = Literal["incomplete", "stop: an effect", "stop: equivalent", "go on"]


def first_look(result: Mapping[str, Any]) -> Decision:
    """What the first five seeds decide."""
    primary = [each for each in result["contrasts"] if each["role"] == "primary"]
    if result["missing"] or not primary or primary[0]["p"] is None:
        return "incomplete"
    if primary[0]["p"] < EARLY:
        return "stop: an effect"
    return "stop: equivalent" if primary[0]["p_equivalent"] < EQUIVALENT else "go on"
