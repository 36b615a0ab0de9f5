import json
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from openrlhf_mtp.bench import step
from openrlhf_mtp.bench.step import Result, Step
from openrlhf_mtp.bench.step_forms import DETACH, FIXED, OCC, PLAIN, Workload


def steps(seconds: tuple[float, float, float], head: float) -> tuple[Step, ...]:
    return tuple(
        Step(took, {"forward": forward, "backward": 5.0, "update": 1.0, "head": head})
        for took, forward in zip(seconds, (2.0, 4.0, 3.0), strict=True)
    )


RESULTS = [
    Result(PLAIN, steps((10.0, 20.0, 10.0), 0.0)),
    Result(DETACH, steps((11.0, 21.0, 12.0), 1.0)),
    Result(FIXED, steps((12.0, 24.0, 12.0), 2.0)),
    Result(OCC, steps((12.0, 26.0, 12.6), 2.0)),
]
NOTE: dict[str, Any] = {
    "layers": 24,
    "hidden": 1024,
    "vocab": 32_768,
    "depths": 3,
    "micro_batches": 1,
    "sequences": 4,
    "prompt": 32,
    "response": 128,
    "fraction": 0.25,
    "device": "CPU, 1 threads",
    "torch": "2.13.0",
}


def text(table: Table) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def row(table: Table, form: str) -> list[str]:
    """The cells of a form's line."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text(table).splitlines()]
    return next(cells for cells in lines if cells and cells[0] == form)


def test_ratios_are_taken_turn_by_turn_so_that_a_slow_moment_hits_both() -> None:
    # 11/10, 21/20, 12/10; the ratio of the medians would be 1.2
    assert row(step.render(RESULTS, NOTE), DETACH) == ["detach", "12.00", "1.100", "1.050-1.200"]


def test_where_the_time_goes_is_a_median_for_each_part() -> None:
    assert row(step.render_parts(RESULTS), DETACH) == ["detach", "3.00", "5.00", "1.00", "1.00"]


def test_occ_is_compared_with_the_fixed_coefficient() -> None:
    assert "occ over fixed: 1.050 (1.000-1.083)" in text(step.render(RESULTS, NOTE))
    assert step.to_json(RESULTS, NOTE)["occ_over_fixed"] == pytest.approx((1.05, 1.0, 26 / 24))


def test_the_record_keeps_every_step() -> None:
    record = step.to_json(RESULTS, NOTE)
    json.dumps(record)
    assert record["forms"][DETACH]["seconds"] == (11.0, 21.0, 12.0)
    assert record["forms"][DETACH]["over_no_head"] == pytest.approx((1.1, 1.05, 1.2))


def test_every_regime_is_measured_on_the_share_of_anchors_that_was_asked_for() -> None:
    forms = Workload(fraction=0.5, depths=2).forms()
    assert forms[PLAIN] is None
    shares = {
        name: form["anchor_fraction"] for name, form in forms.items() if form and "anchor_fraction" in form
    }
    assert set(shares.values()) == {0.5}
    assert set(forms) - set(shares) == {PLAIN, "detach, all anchors"}
