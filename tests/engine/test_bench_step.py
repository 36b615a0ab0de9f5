"""`bench step` on a tiny policy: the real trainer in every regime, and a result that keeps what was timed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from openrlhf_mtp.bench.step import RESULT, SMOKE, bench_step
from openrlhf_mtp.bench.step_forms import Workload
from tests.processes import in_fresh_process


def _bench(out: str) -> int:
    return bench_step(Path(out), replace(Workload(), **SMOKE, micro_batches=2))  # type: ignore[arg-type]


def test_every_regime_takes_real_steps_in_turn(tmp_path: Path) -> None:
    assert in_fresh_process(_bench, str(tmp_path)) == 0
    record = json.loads((tmp_path / RESULT).read_text())
    forms = record["forms"]
    assert set(forms) == set(Workload().forms())
    for form in forms.values():
        assert len(form["seconds"]) == SMOKE["repeats"]
        parts = {name: seconds[0] for name, seconds in form["parts"].items()}
        assert all(seconds > 0 for name, seconds in parts.items() if name != "head")
        assert sum(parts.values()) < form["seconds"][0]
    assert forms["no head"]["parts"]["head"] == [0.0]
    assert all(form["parts"]["head"][0] > 0 for name, form in forms.items() if name != "no head")
    assert record["occ_over_fixed"][0] > 0
