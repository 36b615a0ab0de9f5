"""Entropy against acceptance: known slopes come back."""

import numpy as np
import pytest

from openrlhf_mtp.analysis.figures.entropy_acceptance import slopes
from openrlhf_mtp.runlog.anchor_records import Records
from tests.unit.analysis.recorded import recorded


def test_each_depth_and_each_way_of_drafting_gets_its_own_line():
    found = {(one.depth, one.draft): one for one in slopes([recorded(), recorded(seed=1)])}
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
    assert {slope.draft for slope in slopes([without])} == {"sampled"}


def test_a_policy_without_any_entropy_has_an_acceptance_but_no_line():
    one = recorded()
    (first, *_) = slopes([Records(np.zeros_like(one.entropy), one.alpha, one.greedy, one.response)])
    assert first.line is None
    assert 0.85 < first.acceptance < 0.95


def test_no_records_have_no_slopes():
    assert slopes([]) == []
