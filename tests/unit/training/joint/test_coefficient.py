"""The three coefficients of the joint term: the same methods, and when each is known."""

from __future__ import annotations

import inspect

import pytest
import torch

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.joint.coefficient import (
    ActionTokens,
    Coefficient,
    FixedCoefficient,
    HeadLogProbs,
    Scored,
)
from openrlhf_mtp.training.joint.occ import OCC
from openrlhf_mtp.training.joint.occ_released import ReleasedOCC
from openrlhf_mtp.training.step_inputs import Undecided

DEPTHS = 3
FIXED = FixedCoefficient(CoefficientSettings(value=0.3), DEPTHS)
PAPER = OCC(CoefficientSettings(kind="occ"), DEPTHS)
RELEASED = ReleasedOCC(CoefficientSettings(kind="occ"), DEPTHS)


def methods(kind):
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in found if not name.startswith("_")}


@pytest.mark.parametrize("coefficient", [FIXED, PAPER, RELEASED])
def test_each_has_the_methods_that_the_joint_term_asks_for(coefficient):
    asked = methods(Coefficient)
    assert len(asked) == 3
    assert {name: methods(type(coefficient))[name] for name in asked} == asked
    assert isinstance(coefficient.needs_occ_measured, bool)


def scored(moved):
    """One token whose log-prob the policy moved by `moved`, and a head that depth by depth agrees less."""
    old = torch.full((1, 1), -2.0)
    head = old + torch.tensor([0.5, 1.0, 2.0])[:, None, None]
    tokens = ActionTokens(torch.ones(1, 1, dtype=torch.bool), old + moved, old, torch.ones(1, 1), None)
    return Scored(tokens, HeadLogProbs(head, head, torch.ones(DEPTHS, 1, 1, dtype=torch.bool)))


@pytest.mark.parametrize("coefficient", [PAPER, RELEASED])
def test_occ_is_0_until_the_policy_has_moved_and_then_depends_on_the_tokens(coefficient):
    unmoved = coefficient.before_move
    assert unmoved.values.tolist() == [0.0] * DEPTHS
    assert not unmoved.is_needed
    assert coefficient.after_move is None
    decided = coefficient.decide([scored(moved=0.5)])
    assert decided.values[0].item() == pytest.approx(1.0, rel=1e-6)
    assert decided.is_needed
    assert Undecided.is_needed


def test_a_rank_whose_own_coefficient_is_0_takes_part_in_what_all_ranks_compute():
    nothing = [scored(moved=0.0)]
    assert RELEASED.decide(nothing).values.tolist() == [0.0] * DEPTHS
    assert RELEASED.decide(nothing).is_needed
    # the paper's is the same on every rank
    assert not PAPER.decide(nothing).is_needed


@pytest.mark.parametrize("coefficient", [PAPER, RELEASED])
def test_micro_batches_decide_together(coefficient):
    apart = [coefficient.decide([scored(moved)]).values[0].item() for moved in (0.25, 0.75)]
    together = coefficient.decide([scored(0.25), scored(0.75)]).values[0].item()
    assert together == pytest.approx(sum(apart) / 2)


def test_the_papers_sums_are_kept_for_the_metrics():
    decided = PAPER.decide([scored(moved=0.5)])
    alignment, magnitude, tokens = decided.occ_sums.tolist()
    assert alignment == pytest.approx([0.25, 0.5, 1.0])
    assert magnitude == pytest.approx([0.25, 1.0, 4.0])
    assert tokens == [1.0] * DEPTHS
    assert RELEASED.decide([scored(moved=0.5)]).occ_sums is None


def test_the_paper_scales_losses_and_the_released_code_scales_advantages():
    coefficient = torch.tensor([0.6, 0.0, -0.3], dtype=torch.float64)
    paper, fixed = PAPER._on_losses(coefficient), FIXED.before_move
    assert paper.inside == fixed.inside == [1.0] * DEPTHS
    assert paper.outside == pytest.approx([0.2, 0.0, -0.1])
    assert fixed.outside == pytest.approx([0.1] * DEPTHS)
    released = RELEASED._inside(coefficient)
    assert released.inside == pytest.approx([0.6, 0.0, -0.3])
    assert released.outside == [1.0, 0.0, 1.0]
