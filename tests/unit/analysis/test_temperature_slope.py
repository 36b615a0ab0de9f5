"""The slope in tokens per nat: that of the points, with the interval that their errors give it."""

import math

import numpy as np
import pytest
from scipy import stats

from openrlhf_mtp.analysis.figures.temperatures import table
from openrlhf_mtp.analysis.groups import Group
from openrlhf_mtp.analysis.temperature_slope import NO_SWEEP, mean_slope, slope_of
from openrlhf_mtp.runlog.run import Run
from openrlhf_mtp.runlog.temperature_sweep import TemperaturePoint


def sweep(*points, error=0.01):
    return [TemperaturePoint(0.8 + 0.2 * at, h, length, error, 50) for at, (h, length) in enumerate(points)]


def test_the_slope_is_that_of_least_squares():
    points = [(0.4, 3.6), (0.7, 3.2), (1.1, 2.5)]
    slope, why_not = slope_of(sweep(*points))
    exact = stats.linregress(*zip(*points, strict=True))
    assert why_not == ""
    assert slope.value == pytest.approx(exact.slope)
    distances = [length - exact.intercept - exact.slope * h for h, length in points]
    assert slope.bend == pytest.approx(max(map(abs, distances)))


def test_the_interval_holds_the_truth_in_95_of_100_sweeps():
    rng, entropy, held = np.random.default_rng(0), np.array([0.4, 0.7, 1.1]), 0
    for _ in range(2000):
        lengths = 3.0 - 1.6 * entropy + 0.05 * rng.normal(size=3)
        slope, _ = slope_of(sweep(*zip(entropy.tolist(), lengths.tolist(), strict=True), error=0.05))
        held += abs(slope.value + 1.6) < slope.half_width
    assert held / 2000 == pytest.approx(0.95, abs=0.02)


def test_a_slope_that_cannot_be_told_says_why():
    assert slope_of([]) == slope_of(sweep((0.5, 3.0))) == (None, NO_SWEEP)
    slope, why_not = slope_of(sweep((0.5, 3.0), (0.5, 3.1)))
    assert slope is None
    assert "the sweep moved entropy by 0.0e+00 nat" in why_not


def test_the_mean_of_several_sweeps_is_surer_than_each():
    slopes = [slope_of(sweep((0.0, 3.0), (1.0, 3.0 + b)))[0] for b in (-1.0, -2.0)]
    mean = mean_slope(slopes)
    assert mean.value == pytest.approx(-1.5)
    assert mean.half_width == pytest.approx(slopes[0].half_width / math.sqrt(2))


def test_the_table_has_a_row_a_temperature_and_the_slope_once(tmp_path):
    run = Run(tmp_path, "a", temperatures=sweep((0.4, 3.6), (1.4, 2.0)))
    rows = table([Group("a", (run,))]).rows
    assert rows[0][:5] == ["a", "0.8", "0.400", "3.600 ± 0.010", "50"]
    assert rows[0][5].startswith("-1.600 ± 0.0")
    assert rows[1][5:] == ["", ""]
    assert table([Group("a", (Run(tmp_path, "a"),))]) is None
