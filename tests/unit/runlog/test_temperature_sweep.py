"""A temperature sweep comes back as it was written, and a broken file costs a warning and no report."""

import json

import pytest

from openrlhf_mtp.config.run_files import METRICS, TEMPERATURES, TRAINED_HEAD
from openrlhf_mtp.runlog.run import read_run
from openrlhf_mtp.runlog.temperature_sweep import TemperaturePoint, read_temperatures, write_temperatures

POINTS = [TemperaturePoint(0.8, 0.31, 3.6, 0.02, 40), TemperaturePoint(1.2, 0.9, 2.5, 0.03, 40)]


def test_points_come_back_by_temperature(tmp_path):
    write_temperatures(tmp_path, POINTS[::-1])
    assert read_temperatures(tmp_path, pytest.fail) == POINTS


def test_no_file_is_no_sweep(tmp_path):
    assert read_temperatures(tmp_path, pytest.fail) == []


@pytest.mark.parametrize(
    "text", ["{", '[{"temperature": 1.0}]', json.dumps([vars(POINTS[0]) | {"length": 1e999}])]
)
def test_a_broken_file_is_left_out_with_a_warning(text, tmp_path):
    (tmp_path / TEMPERATURES).write_text(text)
    warnings = []
    assert read_temperatures(tmp_path, warnings.append) == []
    assert warnings == [f"{TEMPERATURES} could not be read and was left out"]


@pytest.mark.parametrize("below", ["", TRAINED_HEAD])
def test_a_run_reads_its_own_sweep_or_that_of_the_head_it_trained(below, tmp_path):
    (tmp_path / METRICS).touch()
    (tmp_path / below).mkdir(exist_ok=True)
    write_temperatures(tmp_path / below, POINTS)
    assert read_run(tmp_path).temperatures == POINTS
