"""The ratios of all measurements against the committed ones."""

import json

import pytest

from ci import measurements
from ci.compare import load_baseline

EXPECTED = load_baseline(measurements.BASELINE, measurements.FILE)


def file_of(tmp_path, *, shift=0.0, smoke=False):
    """`bench_all.json` with figures that lie so many tolerances on the worse side of the committed ones."""
    metrics = {one.metric: {one.take: one.value + shift * (one.limit - one.value)} for one in EXPECTED}
    file = tmp_path / "bench_all.json"
    file.write_text(json.dumps({"smoke": smoke, "metrics": metrics}), encoding="utf-8")
    return file


@pytest.mark.parametrize(("shift", "code"), [(0.0, 0), (0.9, 0), (1.1, 1)])
def test_what_is_worse_than_its_tolerance_fails(tmp_path, shift, code):
    assert measurements.main([str(file_of(tmp_path, shift=shift))]) == code
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert (f"{len(EXPECTED)} regression(s)" in table) == bool(code)


def test_a_measurement_that_failed_is_a_regression(tmp_path):
    file = file_of(tmp_path)
    measured = json.loads(file.read_text(encoding="utf-8"))
    del measured["metrics"][EXPECTED[0].metric]
    file.write_text(json.dumps(measured), encoding="utf-8")
    assert measurements.main([str(file)]) == 1


@pytest.mark.parametrize("make", [lambda tmp: file_of(tmp, smoke=True), lambda tmp: tmp / "none.json"])
def test_smoke_figures_and_no_file_are_refused(tmp_path, make, capsys):
    with pytest.raises(SystemExit):
        measurements.main([str(make(tmp_path))])
    assert "bench all" in capsys.readouterr().err
