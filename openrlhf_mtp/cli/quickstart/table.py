"""The quickstart's goals, and the table that shows whether this run reached them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from openrlhf_mtp.runlog import metrics

ACCURACY_START, ACCURACY_END = 0.5, 0.8
LENGTH, LENGTH_KEPT = 2.5, 0.9
LOGPROB_GAP = 0.02


@dataclass(frozen=True)
class Goal:
    """One goal of the quickstart.

    Attributes:
        name: of the figure.
        measured: its value in this run.
        required: the value that the goal asks for.
        met: whether the run reached it.
        meaning: the figure in half a sentence.
    """

    name: str
    measured: str
    required: str
    met: bool
    meaning: str


def goals(summary: Mapping[str, Any]) -> list[Goal]:
    """Compare the RL run's `summary.json` with the goals; a missing metric misses its goal."""
    accuracy = summary["metrics"].get(metrics.EVAL_ACCURACY)
    length = summary["metrics"].get(metrics.SPEC_MEAN_ACCEPTANCE_LENGTH)
    gap = summary["metrics"].get(metrics.SPEC_LOGPROB_GAP)
    return [
        Goal(
            "held-out accuracy",
            f"{accuracy['first']:.2f} → {accuracy['last']:.2f}" if accuracy else "not measured",
            f"≤ {ACCURACY_START} → ≥ {ACCURACY_END}",
            bool(accuracy) and accuracy["first"] <= ACCURACY_START and accuracy["last"] >= ACCURACY_END,
            "share of correct answers to problems that no stage trained on, before and after RL",
        ),
        Goal(
            "acceptance length",
            f"{length['first']:.2f} → {length['last']:.2f}, mean {length['mean']:.2f}"
            if length
            else "not measured",
            f"mean ≥ {LENGTH}",
            bool(length) and length["mean"] >= LENGTH,
            "tokens for each forward pass of the policy: 1 without drafts, at most 4 with 3",
        ),
        Goal(
            "its lowest step",
            f"{length['min']:.2f}, {length['min'] / length['first']:.0%} of the start"
            if length
            else "not measured",
            f"≥ {LENGTH_KEPT:.0%} of the start",
            bool(length) and length["min"] >= LENGTH_KEPT * length["first"],
            "the step in which the head was furthest behind the policy",
        ),
        Goal(
            "log-prob gap",
            f"≤ {gap['max']:.4f} nat" if gap else "not measured",
            f"≤ {LOGPROB_GAP} nat",
            bool(gap) and gap["max"] <= LOGPROB_GAP,
            "difference between engine and trainer in the log-prob of a sampled token",
        ),
    ]


def render(
    reached: Sequence[Goal], summary: Mapping[str, Any], seconds: Mapping[str, float], peak_gib: float
) -> RenderableType:
    """Lay out the closing table: a figure with its goal, and below it the meaning of the figure."""
    shares = ", ".join(f"{part} {share:.0%}" for part, share in summary["time_share"].items())
    rows: list[RenderableType] = [Text("Results", style="bold")]
    for goal in reached:
        outcome = "met" if goal.met else "MISSED"
        rows += row(goal.name, f"{goal.measured}  (goal {goal.required}: {outcome})", goal.meaning)
    rows += row("time of an RL step", shares, "share of each part")
    rows += row("wall time", stage_times(seconds), "of the stages, without set-up")
    rows += row("peak memory", f"{peak_gib:.1f} GiB", "all processes together")
    return Group(*rows)


def row(name: str, figure: str, meaning: str) -> list[RenderableType]:
    """A figure in bold print, and its meaning below it."""
    return [
        Text.assemble((f"{name}: ", "bold"), figure),
        Padding(Text(meaning, style="dim"), (0, 0, 0, 4), expand=False),
    ]


def stage_times(seconds: Mapping[str, float]) -> str:
    """The seconds of all stages, and of each."""
    parts = ", ".join(f"{name} {taken:.0f}" for name, taken in seconds.items())
    return f"{sum(seconds.values()):.0f} s ({parts})"
