"""The clipped policy loss on the head: PPO's rule, token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openrlhf_mtp.losses.clipped_policy import clipped_policy
from openrlhf_mtp.losses.mixture import mixture
from openrlhf_mtp.losses.mtp_loss import OutputHead, mtp_loss
from openrlhf_mtp.losses.targets import from_hidden
from openrlhf_mtp.losses.types import Objective
from tests.unit.losses.batches import Batch, random_batch

EPS = 0.2


def loss(batch: Batch, objective: Objective, chunk: int = 1000):
    anchors = batch.anchors()
    head = OutputHead.of(
        batch.output_weight, 1.0, chunk_logits=chunk * len(batch.states) * len(batch.output_weight)
    )
    targets = from_hidden(batch.hidden, batch.output_weight, 1.0)
    return mtp_loss(batch.on_grid(anchors), anchors, targets, head, objective)


def measured(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """log q of the sampled tokens (differentiable), mask [N, k], and an advantage for each anchor [N]."""
    anchors = batch.anchors()
    states = torch.stack([z.flatten(0, 1)[anchors.index] for z in batch.states], 1)
    log_q = (states @ batch.output_weight.T).log_softmax(-1).gather(-1, anchors.tokens[..., None])[..., 0]
    advantage = torch.linspace(-1.5, 1.0, len(batch.input_ids), dtype=torch.float64)
    return log_q, anchors.mask, advantage[anchors.row]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_the_loss_and_its_gradient_are_ppos(chunk):
    batch = random_batch()
    log_q, mask, advantage = measured(batch)
    old = log_q.detach() + 0.3 * torch.randn(log_q.shape, generator=torch.Generator().manual_seed(0)).double()
    ratio, signed = (log_q - old).exp(), advantage[:, None]
    each = -torch.minimum(ratio * signed, ratio.clamp(1 - EPS, 1 + EPS) * signed)
    expected = each[mask].sum() / len(batch.states)
    output = loss(batch, clipped_policy(advantage, old, clip_eps=EPS), chunk)
    torch.testing.assert_close(output.loss_sum, expected)
    torch.testing.assert_close(
        torch.autograd.grad(output.loss_sum, batch.states), torch.autograd.grad(expected, batch.states)
    )
    outside = (ratio - 1).abs() > EPS
    assert (outside & mask).any(), "some tokens are clipped"
    assert (~outside & mask).any(), "and some are not"


def test_the_first_update_is_cross_entropy_times_the_advantage():
    batch = random_batch()
    log_q, mask, advantage = measured(batch)
    expected = torch.autograd.grad(
        -(log_q * advantage[:, None])[mask].sum() / len(batch.states), batch.states
    )
    output = loss(batch, clipped_policy(advantage))
    torch.testing.assert_close(torch.autograd.grad(output.loss_sum, batch.states), expected)


def test_it_mixes_with_an_objective_that_keeps_the_head_at_the_policy():
    from openrlhf_mtp.losses import OBJECTIVES

    batch = random_batch()
    *_, advantage = measured(batch)
    policy = clipped_policy(advantage)
    both = mixture({"kl": 1.0, "policy": 0.5}, OBJECTIVES | {"policy": policy})
    expected = loss(batch, OBJECTIVES["kl"]).loss_sum + 0.5 * loss(batch, policy).loss_sum
    torch.testing.assert_close(loss(batch, both).loss_sum, expected)


def test_a_clip_range_that_leaves_no_gradient_is_refused():
    with pytest.raises(ValueError, match="clip_eps: got 0, expected > 0"):
        clipped_policy(torch.zeros(1), clip_eps=0)
