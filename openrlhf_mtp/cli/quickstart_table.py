"""What the quickstart promises, and the table that shows whether this run kept it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

ACCURACY_START, ACCURACY_END = 0.5, 0.8
LENGTH, LENGTH_KEPT = 2.5, 0.9
LOGPROB_GAP = 0.02


@dataclass(frozen=True)
class Goal:
    """A promise: what was measured, what was promised, whether it holds."""

    name: str
    measured: str
    promised: str
    met: bool


def goals(summary: Mapping[str, Any]) -> list[Goal]:
    """The promises held against the RL run's `summary.json`; a metric that is missing breaks its promise."""
    accuracy = summary["metrics"].get("eval/accuracy")
    length = summary["metrics"].get("spec/mean_acceptance_length")
    gap = summary["metrics"].get("spec/logprob_gap")
    return [
        Goal(
            "held-out accuracy",
            f"{accuracy['first']:.2f} → {accuracy['last']:.2f}" if accuracy else "not measured",
            f"≤ {ACCURACY_START} → ≥ {ACCURACY_END}",
            bool(accuracy) and accuracy["first"] <= ACCURACY_START and accuracy["last"] >= ACCURACY_END,
        ),
        Goal(
            "acceptance length",
            f"{length['first']:.2f} → {length['last']:.2f}, mean {length['mean']:.2f}"
            if length
            else "not measured",
            f"mean ≥ {LENGTH}",
            bool(length) and length["mean"] >= LENGTH,
        ),
        Goal(
            "  lowest step",
            f"{length['min']:.2f}, {length['min'] / length['first']:.0%} of the start"
            if length
            else "not measured",
            f"≥ {LENGTH_KEPT:.0%} of the start",
            bool(length) and length["min"] >= LENGTH_KEPT * length["first"],
        ),
        Goal(
            "log-prob gap",
            f"≤ {gap['max']:.4f} nat" if gap else "not measured",
            f"≤ {LOGPROB_GAP} nat",
            bool(gap) and gap["max"] <= LOGPROB_GAP,
        ),
    ]


def render(
    reached: Sequence[Goal], summary: Mapping[str, Any], seconds: Mapping[str, float], peak_gib: float
) -> Table:
    """The closing table."""
    table = Table(title="quickstart", title_justify="left", show_edge=False, pad_edge=False)
    for column in ("", "measured", "promised", ""):
        table.add_column(column)
    for goal in reached:
        table.add_row(goal.name, goal.measured, goal.promised, "yes" if goal.met else "MISSED")
    shares = ", ".join(f"{part} {share:.0%}" for part, share in summary["time_share"].items())
    table.add_row("share of RL time", shares)
    table.add_row("wall time", _stage_times(seconds))
    table.add_row("peak memory", f"{peak_gib:.1f} GiB")
    return table


def _stage_times(seconds: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name} {taken:.0f}" for name, taken in seconds.items())
    return f"{sum(seconds.values()):.0f} s ({parts})"
