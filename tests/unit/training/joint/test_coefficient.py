"""The three coefficients of the joint term: the same methods, and when each is known."""

from __future__ import annotations

import inspect

import pytest
import torch

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.joint.coefficient import Coefficient, FixedCoefficient
from openrlhf_mtp.training.joint.metrics import JointMetrics
from openrlhf_mtp.training.joint.occ import OCC
from openrlhf_mtp.training.joint.occ_released import ReleasedOCC

DEPTHS = 3
FIXED = FixedCoefficient(CoefficientSettings(value=0.3), DEPTHS)
PAPER = OCC(CoefficientSettings(kind="occ"), DEPTHS, JointMetrics(DEPTHS))
RELEASED = ReleasedOCC(CoefficientSettings(kind="occ"), DEPTHS)


def methods(kind):
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in found if not name.startswith("_")}


@pytest.mark.parametrize("coefficient", [FIXED, PAPER, RELEASED])
def test_each_has_the_methods_that_the_joint_term_asks_for(coefficient):
    asked = methods(Coefficient)
    assert len(asked) == 7
    assert {name: methods(type(coefficient))[name] for name in asked} == asked
    assert isinstance(coefficient.measures_occ, bool)


@pytest.mark.parametrize("coefficient", [PAPER, RELEASED])
def test_occ_is_0_until_the_policy_has_moved_and_then_depends_on_the_tokens(coefficient):
    unmoved = coefficient.ahead(policy_has_moved=False)
    assert unmoved.tolist() == [0.0] * DEPTHS
    assert not coefficient.is_needed(unmoved, policy_has_moved=False)
    assert coefficient.ahead(policy_has_moved=True) is None
    assert coefficient.is_needed(None, policy_has_moved=True)


def test_a_rank_whose_own_coefficient_is_0_takes_part_in_what_all_ranks_compute():
    nothing = torch.zeros(DEPTHS)
    assert RELEASED.is_needed(nothing, policy_has_moved=True)
    # the paper's is the same on every rank
    assert not PAPER.is_needed(nothing, policy_has_moved=True)


def test_the_paper_scales_losses_and_the_released_code_scales_advantages():
    coefficient = torch.tensor([0.6, 0.0, -0.3], dtype=torch.float64)
    for paper in (PAPER, FIXED):
        inside, outside = paper.factors(coefficient)
        assert inside == [1.0] * DEPTHS
        assert outside == pytest.approx([0.2, 0.0, -0.1])
    inside, outside = RELEASED.factors(coefficient)
    assert inside == pytest.approx([0.6, 0.0, -0.3])
    assert outside == [1.0, 0.0, 1.0]
