"""Numbers as they are written: short, comparable, and never more exact than they are."""

import math

import pytest

from openrlhf_mtp.analysis.regression import Mean
from openrlhf_mtp.analysis.table import duration, number, ranges, signed, with_interval


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5"),
        (3.14159, "3.14"),
        (12, "12"),
        (1_600_000.0, "1 600 000"),
        (1234.5, "1 234"),
        (math.nan, "–"),
    ],
)
def test_numbers_are_short_and_never_exponents(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "half_width", "shown"),
    [
        (0.51234, 0.0123, "0.512 ± 0.012"),
        (-1.39e-5, 8e-4, "-0.00001 ± 0.00080"),
        (2995.4, 46.2, "2 995 ± 46"),
        (0.5, 0.25, "0.50 ± 0.25"),
        (60.0, 0.0, "60"),
        (0.1, 1e-17, "0.1"),
        (0.7, math.nan, "0.7"),
    ],
)
def test_a_mean_has_the_digits_that_its_interval_allows(value, half_width, shown):
    assert with_interval(Mean(value, half_width, 3, 3)) == shown


def test_no_mean_is_a_dash():
    assert with_interval(None) == "–"


@pytest.mark.parametrize(
    ("value", "half_width", "shown"),
    [
        (0.0214, math.nan, "+0.021"),
        (-0.00001, math.nan, "+0.000"),
        (-0.4, 0.05, "-0.400 ± 0.050"),
        (math.nan, 0.1, "–"),
    ],
)
def test_differences_carry_their_sign(value, half_width, shown):
    assert signed(value, half_width) == shown


@pytest.mark.parametrize(
    ("steps", "shown"), [([], ""), ([7], "7"), ([3, 4, 5, 9], "3–5, 9"), ([1, 3], "1, 3")]
)
def test_neighboring_steps_are_put_together(steps, shown):
    assert ranges(steps) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(59.6, "60 s"), (150, "2.5 min"), (7200, "2.0 h")])
def test_seconds_come_in_a_unit_that_can_be_grasped(seconds, shown):
    assert duration(seconds) == shown
