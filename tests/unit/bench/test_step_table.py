import json
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from openrlhf_mtp.bench import step as training
from openrlhf_mtp.bench import step_table
from openrlhf_mtp.bench.step import DETACH, FIXED, OCC, PLAIN, Result, Workload


def parts(head: float) -> dict[str, tuple[float, ...]]:
    return {"forward": (2.0, 4.0, 3.0), "backward": (5.0,) * 3, "update": (1.0,) * 3, "head": (head,) * 3}


RESULTS = [
    Result(PLAIN, (10.0, 20.0, 10.0), parts(0.0)),
    Result(DETACH, (11.0, 21.0, 12.0), parts(1.0)),
    Result(FIXED, (12.0, 24.0, 12.0), parts(2.0)),
    Result(OCC, (12.0, 26.0, 12.6), parts(2.0)),
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
    assert row(step_table.render(RESULTS, NOTE), DETACH) == ["detach", "12.00", "1.100", "1.050-1.200"]


def test_where_the_time_goes_is_a_median_for_each_part() -> None:
    assert row(step_table.render_parts(RESULTS), DETACH) == ["detach", "3.00", "5.00", "1.00", "1.00"]


def test_a_call_within_another_counts_for_its_own_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 4.0, 6.0])  # the outer call from 0 to 6, the inner one from 1 to 4
    monkeypatch.setattr(training, "_now", lambda: next(now))

    class Step:
        def inner(self) -> None:
            pass

        def outer(self) -> None:
            self.inner()

    step, watch = Step(), training._Stopwatch()
    watch.watch(step, "inner", "head")
    watch.watch(step, "outer", "forward")
    step.outer()
    assert watch.drain() == {"forward": 3.0, "backward": 0.0, "update": 0.0, "head": 3.0}
    assert watch.drain()["head"] == 0.0


def test_occ_is_compared_with_the_fixed_coefficient() -> None:
    assert "occ over fixed: 1.050 (1.000-1.083)" in text(step_table.render(RESULTS, NOTE))
    assert step_table.to_json(RESULTS, NOTE)["occ_over_fixed"] == pytest.approx((1.05, 1.0, 26 / 24))


def test_the_record_keeps_every_step() -> None:
    record = step_table.to_json(RESULTS, NOTE)
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
