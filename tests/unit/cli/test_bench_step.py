import json
from typing import Any

import pytest
from rich.console import Console

from openrlhf_mtp.cli import bench_step
from openrlhf_mtp.training.bench_step import DETACH, FIXED, OCC, PLAIN, Result, Workload

RESULTS = [
    Result(PLAIN, (10.0, 20.0, 10.0), (0.0, 0.0, 0.0)),
    Result(DETACH, (11.0, 21.0, 12.0), (1.0, 1.0, 2.0)),
    Result(FIXED, (12.0, 24.0, 12.0), (2.0, 2.0, 2.0)),
    Result(OCC, (12.0, 26.0, 12.6), (2.0, 2.0, 2.0)),
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


def text() -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(bench_step.render(RESULTS, NOTE))
    return console.export_text()


def row(form: str) -> list[str]:
    """The cells of a form's line."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text().splitlines()]
    return next(cells for cells in lines if cells and cells[0] == form)


def test_ratios_are_taken_turn_by_turn_so_that_a_slow_moment_hits_both() -> None:
    # 11/10, 21/20, 12/10; the ratio of the medians would be 1.2
    assert row(DETACH) == ["detach", "12.00", "1.100", "1.050-1.200", "1.00"]


def test_a_policy_without_a_head_spends_nothing_on_one() -> None:
    assert row(PLAIN)[-1] == "-"


def test_occ_is_compared_with_the_fixed_coefficient() -> None:
    assert "occ over fixed: 1.050 (1.000-1.083)" in text()
    assert bench_step.to_json(RESULTS, NOTE)["occ_over_fixed"] == pytest.approx((1.05, 1.0, 26 / 24))


def test_the_record_keeps_every_step() -> None:
    record = bench_step.to_json(RESULTS, NOTE)
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
