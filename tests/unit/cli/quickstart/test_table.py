"""The quickstart's closing table: a goal that was missed, or never measured, must not look met."""

import io

import pytest
from rich.console import Console

from openrlhf_mtp.cli.quickstart.table import goals, render


def extent(first, last, low=None, high=None):
    low, high = min(first, last) if low is None else low, max(first, last) if high is None else high
    return {"first": first, "last": last, "min": low, "max": high, "mean": (first + last) / 2}


KEPT = {
    "eval/accuracy": extent(0.4, 0.9),
    "spec/mean_acceptance_length": extent(3.0, 3.3, low=2.9),
    "spec/logprob_gap": extent(0.005, 0.004),
}


def met(changes):
    return [goal.met for goal in goals({"metrics": KEPT | changes, "time_share": {}})]


def test_a_good_run_meets_every_goal():
    assert met({}) == [True, True, True, True]


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"eval/accuracy": extent(0.6, 0.9)}, 0),
        ({"eval/accuracy": extent(0.4, 0.79)}, 0),
        ({"spec/mean_acceptance_length": extent(2.4, 2.5)}, 1),
        ({"spec/mean_acceptance_length": extent(3.0, 3.3, low=2.6)}, 2),
        ({"spec/logprob_gap": extent(0.001, 0.001, high=0.021)}, 3),
    ],
)
def test_each_goal_can_be_missed(changes, missed):
    assert met(changes) == [number != missed for number in range(4)]


def test_what_was_not_measured_was_not_met():
    reached = goals({"metrics": {}, "time_share": {}})
    assert [goal.met for goal in reached] == [False] * 4
    assert {goal.measured for goal in reached} == {"not measured"}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_explains_every_figure_at_any_width(width):
    summary = {"metrics": KEPT, "time_share": {"rollout": 0.5, "sync": 0.1}}
    screen = io.StringIO()
    rows = render(goals(summary), summary, {"equip": 60.0, "train": 120.0}, 5.0)
    Console(file=screen, width=width).print(rows)
    assert max(map(len, screen.getvalue().splitlines())) <= width
    text = " ".join(screen.getvalue().split())
    for shown in (
        "0.40 → 0.90",
        "≤ 0.5 → ≥ 0.8: met",
        "rollout 50%, sync 10%",
        "180 s (equip 60, train 120)",
        "5.0 GiB",
    ):
        assert shown in text
    for goal in goals(summary):
        assert f"{goal.name}: " in text
        assert goal.meaning in text
