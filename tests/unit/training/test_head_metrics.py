"""The head's metrics are sums first and quotients last, so that no split of a batch can change them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.losses.mtp_loss import Sums
from openrlhf_mtp.losses.replayed_acceptance import ReplayedCounts
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.training.head_metrics import HeadMetrics

DEPTHS = 2


def output(loss, loss_count, depth_loss, depth_count, alpha, entropy, length) -> Sums:
    greedy = [value / 2 for value in alpha]
    fields = (loss, loss_count, depth_loss, depth_count, alpha, greedy, entropy, length)
    return Sums(*[torch.tensor(value) for value in fields])


FIRST = output(2.0, 4.0, [1.0, 3.0], [8.0, 4.0], [6.0, 1.0], 10.0, 7.0)
SECOND = output(1.0, 2.0, [2.0, 0.0], [2.0, 2.0], [1.0, 2.0], 5.0, 5.0)


def tallied(*outputs: Sums) -> dict[str, float]:
    tally = HeadMetrics(DEPTHS)
    for each in outputs:
        tally.add(each)
    return tally.metrics()


def test_each_metric_is_its_own_sum_over_its_own_count():
    row = tallied(FIRST, SECOND)
    assert row == {
        "mtp/anchors": 10.0,
        "mtp/loss": 3.0 / 6.0,
        "mtp/loss/depth_1": 3.0 / 10.0,
        "mtp/loss/depth_2": 3.0 / 6.0,
        "mtp/alpha/depth_1": 7.0 / 10.0,
        "mtp/alpha/depth_2": 3.0 / 6.0,
        "mtp/alpha_greedy/depth_1": 3.5 / 10.0,
        "mtp/alpha_greedy/depth_2": 1.5 / 6.0,
        "mtp/entropy": 15.0 / 10.0,
        "mtp/expected_length": 12.0 / 10.0,
    }
    metrics.validate(row)


def test_the_overlap_that_ends_a_warm_up_is_the_mean_over_all_depths_anchors():
    tally = HeadMetrics(DEPTHS)
    assert tally.mean_alpha() == 0.0
    for each in (FIRST, SECOND):
        tally.add(each)
    assert tally.mean_alpha() == (7.0 + 3.0) / (10.0 + 6.0)


def test_the_replay_is_counted_over_all_micro_batches_drafts():
    tally = HeadMetrics(DEPTHS)
    tally.add(FIRST)
    assert "mtp/reach/depth_1" not in tally.metrics()
    for drafts, reached, variance in ((3.0, [2.0, 1.0], 0.75), (1.0, [1.0, 1.0], 0.25)):
        counts = (
            drafts,
            reached,
            variance,
            [[variance, 0.0], [0.0, variance]],
            [[drafts, sum(reached)]],
            [[drafts, sum(reached)], *[[0.0, 0.0]] * 3],
        )
        tally.add_replayed(ReplayedCounts(*map(torch.tensor, counts)))
    assert (tally.metrics()["mtp/reach/depth_1"], tally.metrics()["mtp/reach/depth_2"]) == (3 / 4, 2 / 4)
    assert tally.metrics()["mtp/replayed_length"] == 1 + 3 / 4 + 2 / 4
    assert tally.metrics()["mtp/replayed_length/quarter_1"] == 1 + 5 / 4
    assert "mtp/replayed_length/quarter_2" not in tally.metrics(), "no draft begins there"
    assert tally.metrics()["mtp/accepted_std"] == math.sqrt(1 / 4)
    # length = 1 + 5 / 4, so its slopes on drafts and accepted tokens are -5/16 and 1/4, each of variance 1
    assert tally.metrics()["mtp/replayed_length_se"] == pytest.approx(math.hypot(5 / 16, 1 / 4))


def test_means_of_means_would_give_another_number():
    means = [tallied(each)["mtp/alpha/depth_1"] for each in (FIRST, SECOND)]
    assert tallied(FIRST, SECOND)["mtp/alpha/depth_1"] != pytest.approx(sum(means) / 2)


def test_a_step_without_a_long_enough_response_reports_the_depths_that_it_reaches():
    short = output(0.0, 0.0, [1.5, 0.0], [3.0, 0.0], [0.75, 0.0], 6.0, 4.5)
    assert tallied(short) == {
        "mtp/anchors": 3.0,
        "mtp/entropy": 2.0,
        "mtp/expected_length": 1.5,
        "mtp/loss/depth_1": 0.5,
        "mtp/alpha/depth_1": 0.25,
        "mtp/alpha_greedy/depth_1": 0.125,
    }
    assert tallied() == {"mtp/anchors": 0.0}


@given(st.lists(st.floats(0, 100, width=32), min_size=2, max_size=30), st.data())
def test_the_split_into_micro_batches_does_not_show(losses, data):
    """Float32 sums of one big batch and float64 sums of its parts agree to float32's rounding."""
    cut = data.draw(st.integers(1, len(losses) - 1))

    def batch(values: list[float]) -> Sums:
        count, total = float(len(values)), float(sum(values))
        return output(total, count, [total, total], [count, count], [total, 0.0], total, total)

    whole, parts = tallied(batch(losses)), tallied(batch(losses[:cut]), batch(losses[cut:]))
    assert parts == pytest.approx(whole, rel=1e-6)


def test_many_small_addends_are_not_lost():
    """In float32 a sum of 2^24 no longer grows by 1; a long step has more anchors than that."""
    big = output(2.0**24, 2.0**24, [0.0, 0.0], [2.0**24, 1.0], [0.0, 0.0], 0.0, 0.0)
    one = output(1.0, 0.0, [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], 0.0, 0.0)
    assert tallied(big, one, one, one)["mtp/anchors"] == 2.0**24 + 3


def test_slow_responses_are_counted_one_by_one():
    tally = HeadMetrics(DEPTHS)
    responses = [[10.0, 4.0], [2.0, 3.0], [4.0, 8.0], [4.0, 8.0]]  # lengths 1.4, 2.5, 3 and 3
    quarters = [[20.0, 23.0], *[[0.0, 0.0]] * 3]
    tally.add_replayed(
        ReplayedCounts(
            *map(torch.tensor, (20.0, [12.0, 11.0], 1.0, [[1.0, 0.0], [0.0, 1.0]], responses, quarters))
        )
    )
    row = tally.metrics()
    assert row["mtp/slow_responses"] == 0.25
    assert row["mtp/replayed_length_p10"] == pytest.approx(1.4 + 0.3 * 1.1)
    assert row["mtp/replayed_length"] == pytest.approx(1 + 23 / 20), "drafts weigh alike, not responses"
    metrics.validate(row)
