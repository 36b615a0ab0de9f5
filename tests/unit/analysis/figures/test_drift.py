"""The drift split: entropy's part and the head's own part must be told apart, or it must be said that they cannot."""

import math
from dataclasses import replace

import numpy as np
import pytest

from openrlhf_mtp.analysis.figures.drift import early_steps, split_drift, split_of
from openrlhf_mtp.analysis.temperature_slope import NO_SWEEP, Slope
from openrlhf_mtp.runlog.run import Run
from openrlhf_mtp.runlog.temperature_sweep import TemperaturePoint

STEPS = list(range(1, 101))
SLOPE = Slope(-0.4, 0.05, 1.0, 3.0, 0.0)


def series(*, b=-0.4, mismatch=0.0, noise=0.0, seed=0):
    """Entropy that falls with some wobble, and a length that follows it and loses `mismatch` by the end."""
    rng = np.random.default_rng(seed)
    entropy = np.linspace(1.0, 0.4, 100) + 0.1 * np.sin(np.arange(100))
    lost = mismatch * np.clip(np.arange(100) - 40, 0, None) / 59
    return entropy, 3.0 + b * (entropy - 1.0) - lost + noise * rng.normal(size=100)


def test_a_head_that_fits_drifts_with_entropy_alone():
    drift = split_drift(STEPS, *series(), SLOPE)
    np.testing.assert_allclose(drift.by_entropy, drift.change, atol=1e-12)
    np.testing.assert_allclose(drift.mismatch, 0.0, atol=1e-12)
    assert drift.at_the_end(drift.change) > 0.15


def test_what_entropy_does_not_explain_is_the_heads_own():
    drift = split_drift(STEPS, *series(mismatch=0.2, noise=0.005), SLOPE)
    assert drift.mismatch[-1] == pytest.approx(-0.2, abs=0.05)
    # the last 20 steps lost 0.168 on average
    assert drift.at_the_end(drift.mismatch) == pytest.approx(-0.168, abs=0.03)
    np.testing.assert_allclose(drift.by_entropy + drift.mismatch, drift.change)


def test_a_head_that_falls_behind_from_the_first_step_is_not_excused_by_entropy():
    entropy, _ = series()
    drift = split_drift(STEPS, entropy, 3.0 + 0.5 * (entropy - 1.0), SLOPE)  # length falls with entropy
    assert drift.at_the_end(drift.by_entropy) > 0.0
    assert drift.at_the_end(drift.mismatch) == pytest.approx(0.9 / 0.5 * drift.at_the_end(drift.change))


def test_the_split_is_that_of_the_formula_in_float64():
    entropy, length = series(mismatch=0.3, noise=0.02, seed=3)
    drift = split_drift(STEPS, entropy, length, SLOPE)
    h_0, l_0 = math.fsum(entropy[:20]) / 20, math.fsum(length[:20]) / 20
    for at in range(100):
        part = -0.4 * (entropy[at] - h_0)
        assert drift.by_entropy[at] == pytest.approx(part, abs=1e-13)
        assert drift.mismatch[at] == pytest.approx(length[at] - l_0 - part, abs=1e-13)
    assert drift.doubt == pytest.approx(0.05 * abs(np.mean(entropy[-20:]) - h_0), abs=1e-13)


def test_the_parts_are_zero_on_average_in_the_early_phase():
    drift = split_drift(STEPS, *series(mismatch=0.2, noise=0.01), SLOPE)
    for part in (drift.change, drift.by_entropy, drift.mismatch):
        assert part[: drift.early].mean() == pytest.approx(0.0, abs=1e-12)


def test_without_a_slope_there_is_no_split_and_it_is_said_why():
    drift = split_drift(STEPS, np.full(100, 0.5), np.linspace(3.9, 3.7, 100), None, "because")
    assert drift.slope is None
    assert drift.why_not == "because"
    assert (drift.by_entropy, drift.mismatch) == (None, None)
    assert drift.at_the_end(drift.change) < 0
    assert math.isnan(drift.at_the_end(drift.mismatch))
    assert math.isnan(drift.doubt)


def test_a_run_takes_the_slope_of_the_sweep_that_came_with_its_head(tmp_path):
    entropy, length = series(mismatch=0.2)
    rows = [
        {"step": step, "policy/reward": 0.5, "mtp/entropy": h, "spec/mean_acceptance_length": tokens}
        for step, h, tokens in zip(STEPS, entropy.tolist(), length.tolist(), strict=True)
    ]
    sweep = [TemperaturePoint(t, h, 3.0 - 0.4 * h, 0.01, 50) for t, h in ((0.8, 0.6), (1.0, 1.0), (1.2, 1.5))]
    run = Run(tmp_path, "a", rows=rows, temperatures=sweep)
    split = split_of(run)
    assert split.slope.value == pytest.approx(-0.4)
    assert split.at_the_end(split.mismatch) == pytest.approx(-0.168, abs=0.001)
    without = split_of(replace(run, temperatures=[]))
    assert without.why_not == NO_SWEEP
    assert split_of(replace(run, rows=[{**row, "policy/reward": 0.5} for row in rows[:5]])) is None


def test_a_run_that_ends_with_its_early_phase_has_no_drift():
    assert split_drift(STEPS[:10], *[values[:10] for values in series()], SLOPE) is None
    assert split_drift([], [], [], SLOPE) is None


def test_steps_that_are_not_finite_are_left_out():
    entropy, length = series()
    entropy[50], length[60] = math.nan, math.inf
    drift = split_drift(STEPS, entropy, length, SLOPE)
    assert len(drift.steps) == 98
    assert {51, 61}.isdisjoint(drift.steps)
    assert np.isfinite(drift.mismatch).all()


@pytest.mark.parametrize(("count", "early"), [(11, 10), (50, 10), (200, 40)])
def test_the_early_phase_is_a_fifth_but_ten_steps_at_least(count, early):
    assert early_steps(count) == early
