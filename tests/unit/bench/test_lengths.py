"""Response lengths of a whole rollout: quantiles of a distribution, and what is refused."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.bench.lengths import Lengths, parse_lengths
from openrlhf_mtp.config.errors import JobError


@given(st.integers(1, 200), st.integers(0, 5), st.integers(1, 300), st.floats(0.0, 2.0))
def test_every_length_is_between_one_and_the_limit(count: int, seed: int, most: int, sigma: float) -> None:
    lengths = Lengths(max(1.0, most / 2), sigma, most).draw(count, seed)
    assert len(lengths) == count
    assert all(1 <= each <= most for each in lengths)


def test_half_are_shorter_than_the_median_and_the_tail_is_long() -> None:
    lengths = Lengths(60.0, 0.8, 400).draw(64)
    assert median(lengths) == pytest.approx(60, abs=2)
    # exp(0.8 * 2.42) of the median at the 63.5th of 64 quantiles
    assert max(lengths) == pytest.approx(60 * 6.9, rel=0.1) or max(lengths) == 400
    assert sum(lengths) / 64 > 1.2 * 60, "the mean of a log-normal lies above its median"


def test_the_seed_changes_the_order_alone() -> None:
    some = Lengths(60.0, 0.8, 400)
    assert some.draw(16, seed=1) != some.draw(16, seed=2)
    assert sorted(some.draw(16, seed=1)) == sorted(some.draw(16, seed=2))


def test_a_number_is_one_length_for_all() -> None:
    assert parse_lengths("48").draw(3) == [48, 48, 48]


@pytest.mark.parametrize(
    "text", ["", "0", "-3", "many", "normal:60:0.8:200", "lognormal:60:0.8", "lognormal:60:x:200"]
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="--lengths: got"):
        parse_lengths(text)


@pytest.mark.parametrize("text", ["lognormal:0:1:200", "lognormal:300:1:200", "lognormal:60:-1:200"])
def test_values_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(JobError, match="expected 1 <= MEDIAN <= MOST"):
        parse_lengths(text)
