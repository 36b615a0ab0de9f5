"""Promised, replayed and measured length: which steps count, and how well their difference is known."""

import math

import numpy as np
import pytest

from openrlhf_mtp.analysis.lengths import lengths_of, verdicts


def row(gap, *, error=0.01, measured=3.0, promised=3.5):
    return {
        "mtp/expected_length": promised,
        "mtp/replayed_length": measured + gap,
        "spec/mean_acceptance_length": measured,
        "spec/length_gap": gap,
        "spec/length_gap_se": error,
    }


def test_the_lengths_are_means_over_the_steps_that_have_all_of_them():
    partial = {name: value for name, value in row(9.0).items() if name != "mtp/expected_length"}
    found = lengths_of([{"step": 0, "eval/accuracy": 0.5}, row(0.1), partial, row(0.3), row(math.nan)])
    assert found.steps == 2
    assert (found.promised, found.replayed, found.measured) == pytest.approx((3.5, 3.2, 3.0))
    assert found.gap == pytest.approx(0.2)
    assert found.unevenness == pytest.approx(0.3)


def test_no_step_with_a_replay_is_no_answer():
    assert lengths_of([{"spec/mean_acceptance_length": 3.0, "mtp/expected_length": 3.1}]) is None


def test_the_error_is_that_of_the_drafts_where_the_steps_scatter_no_more():
    assert lengths_of([row(0.0, error=0.03), row(0.0, error=0.04)]).gap_error == pytest.approx(0.025)
    assert lengths_of([row(0.2, error=0.03)]).gap_error == pytest.approx(0.03)


def test_the_error_covers_the_scatter_of_the_steps():
    gaps = np.random.default_rng(1).normal(0.0, 0.1, 400)
    found = lengths_of([row(gap, error=0.001) for gap in gaps.tolist()])
    assert found.gap_error == pytest.approx(0.1 / 20, rel=0.1)


def test_a_gap_within_its_error_or_that_of_the_updates_is_no_disagreement():
    assert verdicts(lengths_of([row(0.04, error=0.01, promised=3.0)])) == []
    assert verdicts(lengths_of([row(0.015, error=0.0001, promised=3.0)] * 2)) == []


@pytest.mark.parametrize(
    ("gap", "fault"), [(0.06, "do not draft with the trainer's weights"), (-0.06, "does not measure")]
)
def test_a_gap_beyond_both_is_a_sentence_that_says_who_is_at_fault(gap, fault):
    (sentence,) = verdicts(lengths_of([row(gap, error=0.01, promised=3.0)]))
    assert fault in sentence
    assert f"{gap:+.3f} ± 0.010 tokens over 1 steps" in sentence


def test_a_promise_far_above_the_replay_is_badly_drafted_text():
    (sentence,) = verdicts(lengths_of([row(0.0, promised=3.11)]))
    assert "promises 3.11 tokens and replays 3.00" in sentence
    assert verdicts(lengths_of([row(0.0, promised=3.09)])) == []
