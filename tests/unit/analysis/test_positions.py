"""Positions: what depends on each other is one cluster, and a handful of positions is no bin."""

import numpy as np
import pytest

from openrlhf_mtp.analysis.positions import BLOCK, binned, positions
from openrlhf_mtp.runlog.anchor_records import Records
from tests.unit.analysis.recorded import recorded


def test_few_long_responses_are_cut_into_blocks():
    few = recorded(responses=3, length=640)
    at = positions([few], 1)
    assert len(np.unique(at.cluster)) == 3 * 640 // BLOCK
    many = positions([recorded(responses=40, length=50)], 1)
    assert len(np.unique(many.cluster)) == 40


def test_records_without_responses_are_cut_into_blocks():
    one = recorded()
    at = positions([Records(one.entropy, one.alpha, one.greedy)], 1)
    assert len(np.unique(at.cluster)) == -(-40 * 50 // BLOCK)


def test_steps_never_share_a_cluster():
    at = positions([recorded(responses=30), recorded(responses=30)], 1)
    assert len(np.unique(at.cluster)) == 60


def test_a_group_of_few_positions_is_not_shown():
    h = np.array([0.1] * 50 + [1.5] * 5)
    bins = binned(h, np.where(h < 1, 0.9, 0.1), np.arange(55))
    assert [(one.entropy, one.acceptance.value) for one in bins] == [(pytest.approx(0.1), pytest.approx(0.9))]


def test_a_depth_that_was_not_recorded_has_no_positions():
    assert len(positions([recorded(depths=2)], 3).entropy) == 0
