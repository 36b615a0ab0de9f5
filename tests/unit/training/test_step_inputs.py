"""The frozen state of an optimizer step."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest
import torch

from openrlhf_mtp.losses.advantage import AdvantageWeights
from openrlhf_mtp.training.step_inputs import StepInputs

NORMALIZERS = {"dp_size": 2, "batch_num_tokens": torch.tensor(10.0), "global_batch_size": torch.tensor(4.0)}
MASK = torch.ones(2, 3, dtype=torch.bool)
EXPERIENCE = SimpleNamespace(advantages=torch.tensor([[1.0], [-1.0]]) * MASK, action_mask=MASK, info={})


def inputs(**parts):
    return StepInputs(normalizers=NORMALIZERS, anchor_seed=0, policy_has_moved=True, **parts)


def test_nothing_of_it_changes_between_micro_batches():
    with pytest.raises(FrozenInstanceError):
        inputs().coefficient = torch.zeros(3)


def test_the_heads_loss_is_divided_by_this_ranks_part_of_the_steps_tokens():
    assert inputs().normalizer.item() == 5.0


def test_samples_count_alike_unless_the_step_has_weights():
    assert inputs().row_weight(EXPERIENCE) is inputs().joint_row_weight(EXPERIENCE) is None


def test_each_loss_has_the_weights_normalized_over_what_it_counts():
    both = inputs(
        weights=AdvantageWeights("positive", 1.0, 0.5), joint_weights=AdvantageWeights("positive", 1.0, 0.25)
    )
    assert both.row_weight(EXPERIENCE).tolist() == [2.0, 0.0]
    assert both.joint_row_weight(EXPERIENCE).tolist() == [4.0, 0.0]
