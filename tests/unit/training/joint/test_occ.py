"""OCC's coefficient against loops in float64, and what it must not depend on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.joint.coefficient import FixedCoefficient
from openrlhf_mtp.training.joint.occ import EPSILON, OCC, occ_coefficient, occ_sums
from openrlhf_mtp.training.joint.occ_released import ReleasedOCC, released_code_sums

DEPTHS = 3


def random_step(seed, rows=6, length=10):
    """Log-probs of the policy, of the old one, of the head [k, B, S], and the head's mask."""
    draw = np.random.default_rng(seed)
    shape = (rows, length)
    old, new = -draw.exponential(size=(2, *shape))
    head = -draw.exponential(size=(DEPTHS, *shape))
    mask = draw.random((DEPTHS, *shape)) < 0.6
    return tuple(torch.tensor(x) for x in (new, old, head, mask))


@given(st.integers(0, 1000))
def test_the_coefficient_is_the_papers_ratio_of_sums_over_masked_tokens(seed):
    new, old, head, mask = random_step(seed)
    got = occ_coefficient(occ_sums(new, old, head, mask), scale=0.5)
    for j in range(DEPTHS):
        top = bottom = 0.0
        for b, t in mask[j].nonzero().tolist():
            rl, mtp = (new - old)[b, t].item(), (head[j] - old)[b, t].item()
            top, bottom = top + rl * mtp, bottom + mtp * mtp
        assert got[j].item() == pytest.approx(0.5 * top / (bottom + EPSILON), rel=1e-12)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_split_into_micro_batches_does_not_matter(parts):
    step = random_step(0)
    pieces = [
        occ_sums(*(x[..., n * 6 // parts : (n + 1) * 6 // parts, :] for x in step)) for n in range(parts)
    ]
    torch.testing.assert_close(torch.stack(pieces).sum(0), occ_sums(*step))


def test_what_lies_outside_the_mask_does_not_matter():
    new, old, head, mask = random_step(1)
    spoiled = torch.where(mask, head, torch.nan)
    assert occ_sums(new, old, spoiled, mask).equal(occ_sums(new, old, head, mask))


def test_occ_terms_are_zero_for_an_unmoved_policy_and_finite_for_an_agreeing_head():
    new, old, head, mask = random_step(2)
    assert not occ_coefficient(occ_sums(old, old, head, mask), 1.0).any()
    assert not occ_coefficient(occ_sums(new, old, old.expand_as(head), mask), 1.0).any()


def test_the_sign_turns_with_the_direction_of_the_policy():
    new, old, head, mask = random_step(3)
    forward = occ_coefficient(occ_sums(new, old, head, mask), 1.0)
    backward = occ_coefficient(occ_sums(2 * old - new, old, head, mask), 1.0)
    torch.testing.assert_close(backward, -forward)


def test_the_released_codes_mean_explodes_where_the_head_agrees():
    old = torch.zeros(1, 4)
    new, head = torch.tensor([[0.1, 0.1, 0.1, 0.0]]), torch.tensor([[[0.2, 0.2, 1e-3, 0.0]]])
    actions = torch.tensor([[0, 1, 1, 1]])
    total, count = released_code_sums(new.roll(1, 1), old, head.roll(1, 2), actions).tolist()
    assert count == 3, "one row, three response tokens; the prompt does not count"
    both = [torch.cat([x, torch.zeros_like(x)], -2) for x in (new.roll(1, 1), old, head.roll(1, 2))]
    short = torch.cat([actions, torch.tensor([[0, 1, 0, 0]])])
    assert released_code_sums(*both, short)[1] == 6, "padding of a shorter response counts"
    assert total == pytest.approx(0.5 + 0.5 + 100.0, rel=0.02), "one token outweighs all others"
    paper = occ_coefficient(occ_sums(new, old, head, head != 0), 1.0)
    assert paper.item() == pytest.approx(0.5, rel=0.01)


def tracker(**settings):
    return OCC(CoefficientSettings(kind="occ", **settings), DEPTHS)


def sums_of(*ratios):
    return torch.tensor([ratios, [1.0] * DEPTHS, [10.0] * DEPTHS], dtype=torch.float64)


def test_smoothing_and_bounds_are_off_by_default():
    plain = tracker()
    plain.from_sums(sums_of(1.0, 1.0, 1.0))
    assert plain.from_sums(sums_of(-50.0, 0.0, 50.0)).tolist() == pytest.approx([-50.0, 0.0, 50.0])


def test_smoothing_mixes_with_the_step_before_and_bounds_come_last():
    smooth = tracker(smoothing=0.75, bounds=(-1.0, 1.0))
    assert smooth.from_sums(sums_of(4.0, 0.0, -8.0)).tolist() == pytest.approx([1.0, 0.0, -1.0])
    # the bound does not enter what is remembered: 0.75 * 4 + 0.25 * -8 = 1, 0.75 * -8 + 0.25 * 24 = 0
    assert smooth.from_sums(sums_of(-8.0, 0.8, 24.0)).tolist() == pytest.approx([1.0, 0.2, 0.0], abs=1e-6)


@settings(max_examples=20)
@given(st.lists(st.floats(-2, 2), min_size=2, max_size=8), st.floats(0, 0.9))
def test_a_resumed_tracker_continues_as_if_nothing_had_happened(ratios, smoothing):
    whole, first = tracker(smoothing=smoothing), tracker(smoothing=smoothing)
    for ratio in ratios[:-1]:
        whole.from_sums(sums_of(ratio, ratio, ratio))
        first.from_sums(sums_of(ratio, ratio, ratio))
    second = tracker(smoothing=smoothing)
    second.load_state(first.state())
    last = sums_of(ratios[-1], 0.0, 1.0)
    assert second.from_sums(last).tolist() == whole.from_sums(last).tolist()


def test_the_scale_multiplies_both_forms_and_the_released_code_knows_depth_1_alone():
    assert tracker(scale=0.5).from_sums(sums_of(2.0, 4.0, -6.0)).tolist() == pytest.approx([1.0, 2.0, -3.0])
    step = torch.tensor([6.0, 4.0], dtype=torch.float64)  # sum of ratios, positions
    released = ReleasedOCC(CoefficientSettings(kind="occ", scale=2.0), DEPTHS)
    assert released.from_sums(step).tolist() == [3.0, 0.0, 0.0]
    assert released.from_sums(torch.zeros(2)).tolist() == [0.0, 0.0, 0.0]


def test_the_fixed_coefficient_is_the_settings():
    fixed = FixedCoefficient(CoefficientSettings(value=0.3), DEPTHS)
    for known in (fixed.before_move, fixed.after_move):
        assert known is not None
        assert known.values.tolist() == [0.3] * DEPTHS


def test_the_first_update_after_a_rollout_is_zero_and_leaves_the_memory_alone():
    smooth = tracker(smoothing=0.5)
    smooth.from_sums(sums_of(2.0, 2.0, 2.0))
    nothing = torch.zeros(3, DEPTHS, dtype=torch.float64)
    assert smooth.from_sums(nothing).tolist() == [0.0] * DEPTHS
    assert smooth.from_sums(sums_of(4.0, 4.0, 4.0)).tolist() == pytest.approx([3.0] * DEPTHS)
