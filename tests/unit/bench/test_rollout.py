import pytest

from openrlhf_mtp.bench.rollout import Comparison, Speed, Workload


def test_the_ratio_is_that_of_the_medians_and_its_spread_the_extremes() -> None:
    row = Comparison(4, Speed(4, (10.0, 20.0, 12.0), {}), Speed(4, (24.0, 36.0, 30.0), {}))
    assert row.ratio == pytest.approx(30 / 12)
    assert row.ratio_low == pytest.approx(24 / 20)
    assert row.ratio_high == pytest.approx(36 / 10)


def test_room_for_the_longest_prompt_and_its_response() -> None:
    assert Workload([[1], [1, 2, 3]], 64, []).longest == 67
