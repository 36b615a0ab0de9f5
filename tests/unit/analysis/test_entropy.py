"""Entropy against acceptance: known slopes come back, and the crossing of two ways of drafting is where it was put."""

import numpy as np
import pytest

from openrlhf_mtp.analysis import entropy
from openrlhf_mtp.runlog.anchor_records import Records


def recorded(*, responses=40, length=50, sampled=(0.95, -0.05), greedy=(1.0, -0.6), seed=0, depths=2):
    """Positions whose acceptance is intercept + slope * H plus noise that a response shares."""
    rng = np.random.default_rng(seed)
    response = np.repeat(np.arange(responses), length)
    h = rng.uniform(0.0, 1.5, (len(response), depths))

    def values(line):
        shared = 0.02 * rng.normal(size=responses)[response][:, None]
        return line[0] + line[1] * h + shared + 0.02 * rng.normal(size=h.shape)

    arrays = [array.astype(np.float32) for array in (h, values(sampled), values(greedy))]
    for array in arrays:
        array[length - 1 :: length, 1:] = np.nan  # the last anchor of a response has depth 1 alone
    return Records(*arrays, response.astype(np.int32))


def test_each_depth_and_each_way_of_drafting_gets_its_own_line():
    found = {(one.depth, one.draft): one for one in entropy.slopes([recorded(), recorded(seed=1)])}
    assert set(found) == {(1, "sampled"), (1, "greedy"), (2, "sampled"), (2, "greedy")}
    for (_, draft), one in found.items():
        truth = {"sampled": -0.05, "greedy": -0.6}[draft]
        assert one.line.slope == pytest.approx(truth, abs=0.005)
        assert one.line.slope_low < one.line.slope < one.line.slope_high
        assert one.line.slope_high - one.line.slope_low < 0.02
        assert one.line.clusters == 80
    assert found[1, "sampled"].line.points == 2 * 40 * 50
    assert found[2, "sampled"].line.points == 2 * 40 * 49


def test_greedy_acceptance_that_was_not_recorded_is_left_out():
    one = recorded()
    without = Records(one.entropy, one.alpha, np.full_like(one.alpha, np.nan), one.response)
    assert {slope.draft for slope in entropy.slopes([without])} == {"sampled"}
    assert entropy.compare(entropy.positions([without], 1)) is None


def test_a_policy_without_any_entropy_has_an_acceptance_but_no_line():
    one = recorded()
    (first, *_) = entropy.slopes([Records(np.zeros_like(one.entropy), one.alpha, one.greedy, one.response)])
    assert first.line is None
    assert 0.85 < first.acceptance < 0.95


def test_few_long_responses_are_cut_into_blocks():
    few = recorded(responses=3, length=640)
    at = entropy.positions([few], 1)
    assert len(np.unique(at.cluster)) == 3 * 640 // entropy.BLOCK
    many = entropy.positions([recorded(responses=40, length=50)], 1)
    assert len(np.unique(many.cluster)) == 40


def test_records_without_responses_are_cut_into_blocks():
    one = recorded()
    at = entropy.positions([Records(one.entropy, one.alpha, one.greedy)], 1)
    assert len(np.unique(at.cluster)) == -(-40 * 50 // entropy.BLOCK)


def test_steps_never_share_a_cluster():
    at = entropy.positions([recorded(responses=30), recorded(responses=30)], 1)
    assert len(np.unique(at.cluster)) == 60


def test_a_group_of_few_positions_is_not_shown():
    h = np.array([0.1] * 50 + [1.5] * 5)
    bins = entropy.binned(h, np.where(h < 1, 0.9, 0.1), np.arange(55))
    assert [(one.entropy, one.acceptance.value) for one in bins] == [(pytest.approx(0.1), pytest.approx(0.9))]


def test_sampling_wins_above_the_entropy_at_which_the_lines_cross():
    # 0.8 - 0.1 H = 1.0 - 0.5 H at H = 0.5
    crossed = entropy.compare(entropy.positions([recorded(sampled=(0.8, -0.1), greedy=(1.0, -0.5))], 1))
    assert crossed.crossing == pytest.approx(0.5, abs=0.05)
    assert crossed.verdict == f"above {crossed.crossing:.2f} nat"
    assert crossed.share == pytest.approx(2 / 3, abs=0.05)
    assert crossed.gain.value == pytest.approx(crossed.sampled - crossed.greedy, abs=1e-6)
    assert crossed.gain.value == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("sampled", "greedy", "verdict"),
    [((0.95, 0.0), (0.8, -0.4), "at every entropy"), ((0.5, 0.0), (0.9, 0.0), "nowhere")],
)
def test_one_way_that_always_wins_has_no_crossing(sampled, greedy, verdict):
    compared = entropy.compare(entropy.positions([recorded(sampled=sampled, greedy=greedy)], 1))
    assert (compared.crossing, compared.verdict) == (None, verdict)


def test_no_records_have_no_slopes():
    assert entropy.slopes([]) == []
    assert entropy.compare(entropy.positions([], 1)) is None
    assert len(entropy.positions([recorded(depths=2)], 3).entropy) == 0
