"""Lines and means: the right number, and an interval that holds it as often as it says."""

import math

import numpy as np
import pytest
from scipy import stats

from openrlhf_mtp.analysis.regression import fit_line, mean_of, t_975


def clustered(rng, *, clusters=40, size=30, slope=-0.5):
    """Points whose noise is mostly shared by their cluster, as x is: the case in which plain intervals fail."""
    group = np.repeat(np.arange(clusters), size)
    x = rng.normal(size=clusters)[group] + 0.3 * rng.normal(size=len(group))
    noise = 0.3 * rng.normal(size=clusters)[group] + 0.1 * rng.normal(size=len(group))
    return x, 0.9 + slope * x + noise, group


def test_points_on_a_line_give_that_line_and_no_doubt():
    line = fit_line([0.0, 1.0, 2.0, 5.0], [1.0, 0.75, 0.5, -0.25])
    assert (line.slope, line.intercept) == pytest.approx((-0.25, 1.0))
    assert line.slope_low == pytest.approx(line.slope_high)
    assert line.at([4.0]).tolist() == pytest.approx([0.0])
    assert (line.x_low, line.x_high, line.points, line.clusters) == (0.0, 5.0, 4, 4)


def test_the_slope_interval_covers_95_percent_with_dependent_tokens():
    rng = np.random.default_rng(0)
    held = {"clusters": 0, "points": 0}
    trials = 400
    for _ in range(trials):
        x, y, group = clustered(rng)
        for name, line in (("clusters", fit_line(x, y, group)), ("points", fit_line(x, y))):
            held[name] += line.slope_low <= -0.5 <= line.slope_high
    # 0.95 with a standard error of 0.011; CR1 is known to be a few points short with 40 clusters
    assert 0.90 <= held["clusters"] / trials <= 0.98
    assert held["points"] / trials < 0.6, "without clusters the test would prove nothing"


def test_noise_that_grows_with_x_widens_the_interval():
    rng = np.random.default_rng(1)
    held, trials = 0, 400
    for _ in range(trials):
        x = rng.uniform(0, 1, 150)
        line = fit_line(x, 0.8 - 0.2 * x + x**2 * rng.normal(size=150) * 0.5)
        held += line.slope_low <= -0.2 <= line.slope_high
    assert 0.91 <= held / trials <= 0.98


def test_the_band_around_the_line_is_narrowest_where_the_points_are():
    x, y, group = clustered(np.random.default_rng(2))
    line = fit_line(x, y, group)
    middle, far = line.half_width([x.mean(), x.max()])
    assert 0 < middle < far


@pytest.mark.parametrize(
    ("x", "y", "cluster"),
    [
        ([], [], None),
        ([0.0, 1.0], [1.0, 2.0], None),
        ([0.5] * 10, np.arange(10.0), None),
        (np.arange(10.0), np.arange(10.0), [0] * 5 + [1] * 5),
        ([0.0, 1.0, 2.0, math.nan], [1.0, math.nan, 2.0, 3.0], None),
    ],
)
def test_what_cannot_carry_a_line_gives_none(x, y, cluster):
    assert fit_line(x, y, cluster) is None


def test_points_that_are_not_finite_are_left_out():
    line = fit_line([0.0, 1.0, math.nan, 2.0, 3.0], [0.0, 1.0, 9.0, 2.0, math.inf])
    assert (line.slope, line.points) == (pytest.approx(1.0), 3)


def test_three_seeds_have_the_textbook_interval():
    values = [0.7, 0.8, 1.0]
    mean = mean_of(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert mean.value == pytest.approx(np.mean(values))
    assert mean.half_width == pytest.approx((high - low) / 2, rel=1e-4)


def test_a_mean_over_clusters_is_as_sure_as_its_clusters():
    values, cluster = np.repeat([0.7, 0.8, 1.0], 50), np.repeat([0, 1, 2], 50)
    assert mean_of(values, cluster).half_width == pytest.approx(mean_of([0.7, 0.8, 1.0]).half_width)
    assert mean_of(values).half_width < mean_of(values, cluster).half_width / 4


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert math.isnan(mean_of([0.4]).half_width)
    assert mean_of([math.nan]) is None


@pytest.mark.parametrize("freedom", [*range(1, 12), 20, 50, 1000])
def test_quantiles_of_student_t(freedom):
    assert t_975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)


@pytest.mark.parametrize(
    ("freedom", "published"), [(1, 12.706205), (2, 4.302653), (5, 2.570582), (10, 2.228139), (30, 2.042272)]
)
def test_quantiles_of_student_t_are_the_published_ones(freedom, published):
    assert t_975(freedom) == pytest.approx(published, abs=5e-7)


def test_without_a_degree_of_freedom_there_is_no_quantile():
    assert math.isnan(t_975(0))
