import pytest

from openrlhf_mtp.bench.ratios import Ratio


def test_the_ratio_is_that_of_the_medians_and_its_spread_the_extremes() -> None:
    ratio = Ratio.of_medians((8.0, 9.0, 10.0), (10.0, 12.0, 20.0))
    assert ratio.middle == pytest.approx(9 / 12)
    assert ratio.low == pytest.approx(8 / 20)
    assert ratio.high == pytest.approx(10 / 10)


def test_a_slow_moment_hits_both_where_ratios_are_taken_by_turn() -> None:
    ratio = Ratio.by_turn((11.0, 21.0, 12.0), (10.0, 20.0, 10.0))
    assert (ratio.middle, ratio.low, ratio.high) == pytest.approx((1.1, 1.05, 1.2))
    with pytest.raises(ValueError, match="zip"):
        Ratio.by_turn((1.0,), (1.0, 2.0))


def test_the_interval_reads_as_in_the_tables() -> None:
    assert Ratio(1.0, 0.954, 1.036).interval() == "0.95-1.04"
    assert Ratio(1.0, 0.954, 1.036).interval(3) == "0.954-1.036"
