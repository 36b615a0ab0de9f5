"""The drift split: entropy's part and the head's own part must be told apart, or it must be said that they cannot."""

import math

import numpy as np
import pytest

from openrlhf_mtp.analysis.figures.drift import early_steps, split_drift

STEPS = list(range(1, 101))


def series(*, b=-0.4, mismatch=0.0, noise=0.0, seed=0):
    """Entropy that falls with some wobble, and acceptance that follows it and loses `mismatch` by the end."""
    rng = np.random.default_rng(seed)
    entropy = np.linspace(1.0, 0.4, 100) + 0.1 * np.sin(np.arange(100))
    lost = mismatch * np.clip(np.arange(100) - 40, 0, None) / 59
    return entropy, 0.9 + b * (entropy - 1.0) - lost + noise * rng.normal(size=100)


def test_a_head_that_fits_drifts_with_entropy_alone():
    drift = split_drift(STEPS, *series())
    assert drift.slope.slope == pytest.approx(-0.4)
    np.testing.assert_allclose(drift.by_entropy, drift.change, atol=1e-12)
    np.testing.assert_allclose(drift.mismatch, 0.0, atol=1e-12)
    assert drift.at_the_end(drift.change) > 0.15


def test_what_entropy_does_not_explain_is_the_heads_own():
    drift = split_drift(STEPS, *series(mismatch=0.2, noise=0.005))
    assert drift.slope.slope_low < -0.4 < drift.slope.slope_high
    assert drift.mismatch[-1] == pytest.approx(-0.2, abs=0.05)
    # the last 20 steps lost 0.168 on average
    assert drift.at_the_end(drift.mismatch) == pytest.approx(-0.168, abs=0.03)
    np.testing.assert_allclose(drift.by_entropy + drift.mismatch, drift.change)


def test_the_parts_are_zero_on_average_in_the_early_phase():
    drift = split_drift(STEPS, *series(mismatch=0.2, noise=0.01))
    for part in (drift.change, drift.by_entropy, drift.mismatch):
        assert part[: drift.early].mean() == pytest.approx(0.0, abs=1e-12)


def test_without_a_change_of_entropy_the_slope_is_undefined_and_said_to_be():
    drift = split_drift(STEPS, np.full(100, 0.5), np.linspace(0.9, 0.7, 100))
    assert drift.slope is None
    assert "b is undefined: entropy varied by 0.0e+00 nat in the first 20 steps" in drift.why_not
    assert (drift.by_entropy, drift.mismatch) == (None, None)
    assert drift.at_the_end(drift.change) < 0
    assert math.isnan(drift.at_the_end(drift.mismatch))


def test_too_few_early_steps_carry_no_slope():
    drift = split_drift(STEPS, *series(), early=2)
    assert "too few" in drift.why_not


def test_a_run_that_ends_with_its_early_phase_has_no_drift():
    assert split_drift(STEPS[:10], *[values[:10] for values in series()]) is None
    assert split_drift([], [], []) is None


def test_steps_that_are_not_finite_are_left_out():
    entropy, acceptance = series()
    entropy[50], acceptance[60] = math.nan, math.inf
    drift = split_drift(STEPS, entropy, acceptance)
    assert len(drift.steps) == 98
    assert {51, 61}.isdisjoint(drift.steps)
    assert np.isfinite(drift.mismatch).all()


@pytest.mark.parametrize(("count", "early"), [(11, 10), (50, 10), (200, 40)])
def test_the_early_phase_is_a_fifth_but_ten_steps_at_least(count, early):
    assert early_steps(count) == early
