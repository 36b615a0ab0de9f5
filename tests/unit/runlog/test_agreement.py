"""Trainer against engines: a bad head is agreed on, a bad sync is not, and chance is neither."""

import math

import numpy as np
import pytest

from openrlhf_mtp.runlog.agreement import acceptance_gap, disagree, disagreeing_steps, gap_limit, warning


def row(step=1, *, reach=(0.9, 0.8, 0.7), accepted=0.8, drafts=1350.0, gap=None, std=None):
    """A step of a run whose trainer walks; the gap is worked out unless given."""
    made = {f"mtp/reach/depth_{j}": value for j, value in enumerate(reach, start=1)}
    made |= {"step": step, "spec/acceptance_rate": accepted, "spec/drafts": drafts}
    made |= {} if std is None else {"mtp/accepted_std": std}
    return {**made, "spec/alpha_gap": acceptance_gap(made) if gap is None else gap}


def steps_with(*gaps, **fields):
    return [row(step, gap=gap, **fields) for step, gap in enumerate(gaps, start=1)]


def test_the_gap_is_predicted_minus_measured_share_of_drafted_tokens():
    assert acceptance_gap(row(accepted=0.75)) == pytest.approx(0.05)
    assert acceptance_gap(row(accepted=0.85)) == pytest.approx(-0.05)


def test_without_a_walk_the_expected_length_stands_in_with_a_wider_limit():
    rough = {"mtp/expected_length": 3.4, "spec/acceptance_rate": 0.7, "spec/drafts": 1350.0}
    rough |= {f"mtp/alpha/depth_{j}": 0.9 for j in (1, 2, 3)}
    assert acceptance_gap(rough) == pytest.approx(0.1)
    assert gap_limit(rough) > 5 * gap_limit(row())


@pytest.mark.parametrize(
    "lacking",
    [
        {},
        {"spec/acceptance_rate": 0.8},
        {"mtp/reach/depth_1": 0.9},
        {"mtp/expected_length": 3.0, "spec/acceptance_rate": 0.8},
        {"mtp/reach/depth_1": 0.9, "spec/acceptance_rate": math.nan},
    ],
)
def test_a_row_that_lacks_one_side_has_no_gap(lacking):
    assert acceptance_gap(lacking) is None


def test_a_bad_head_is_agreed_on():
    assert not disagree([row(step, reach=(0.2, 0.1, 0.0), accepted=0.1) for step in range(1, 9)])


def test_engines_without_the_trainers_weights_part_from_it_at_the_third_step():
    rows = [row(step, accepted=0.6) for step in range(1, 6)]
    assert disagreeing_steps(rows) == [3, 4, 5]


def test_an_old_head_that_is_lucky_at_times_is_found_out():
    """The gaps of a quickstart whose engines never got a new head, steps 14 to 20."""
    for std in (None, 0.25):  # without a walk's word, and what it says of such a head
        rows = steps_with(0.0144, 0.0166, 0.0165, 0.0398, -0.0189, 0.0215, -0.0317, std=std)
        assert disagreeing_steps(rows) == [7]


def test_the_noise_of_a_healthy_run_is_let_pass_however_few_its_drafts():
    rng = np.random.default_rng(0)
    for drafts in (50, 1350, 20_000):
        gaps = 0.125 / math.sqrt(drafts) * rng.normal(size=2000)
        assert not disagreeing_steps(steps_with(*gaps, drafts=float(drafts)))


def test_a_weak_heads_drafts_scatter_more_and_the_walk_says_how_much():
    """The gaps of a healthy run of three steps on a random policy, whose drafts end anywhere."""
    gaps = (-0.0612, -0.0046, 0.0147)
    assert disagreeing_steps(steps_with(*gaps, drafts=286.0)) == [3]
    weak = steps_with(*gaps, drafts=286.0, std=1.0)
    assert disagreeing_steps(weak) == []
    assert gap_limit(weak[0]) == pytest.approx(0.02 + 2 * (1.0 / 3) / math.sqrt(286))


def test_the_first_steps_of_eight_updates_each_are_let_pass():
    """The widest gaps of a healthy quickstart whose trainer measures during eight updates a step."""
    assert disagreeing_steps(steps_with(0.0321, -0.0, 0.0028, 0.0043, 0.0097, drafts=900.0)) == []


def test_a_single_odd_step_and_a_run_of_two_steps_are_no_verdict():
    assert not disagree(steps_with(0.3, 0.3))
    assert disagreeing_steps(steps_with(0.0, 0.0, 0.0, 0.0, 0.03, 0.0)) == []


def test_steps_without_a_gap_are_passed_over():
    rows = steps_with(0.2, 0.2, 0.2)
    del rows[1]["spec/alpha_gap"]
    assert disagreeing_steps(rows) == []


def test_the_warning_says_whose_fault_it_is():
    said = warning([row(accepted=0.6)])
    assert "predicts that 80.0% of drafted tokens are accepted, the engines accept 60.0%" in said
    assert "look at sync/*" in said
    assert "look at the temperature" in warning([row(accepted=0.9)])


def test_the_warning_is_about_the_widest_gap_of_those_that_made_it():
    rows = [row(1, accepted=0.3), *[row(step, accepted=0.95) for step in range(2, 6)], row(6, accepted=0.79)]
    said = warning(rows)
    assert "at step 2 " in said
    assert "look at the temperature" in said, "step 1 is no longer among the last five, step 6 is hardly off"
