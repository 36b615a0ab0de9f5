"""Weights by advantage: their forms, their mean, and batches in which nothing is better than anything else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.losses.advantage import (
    WEIGHTINGS,
    AdvantageWeights,
    sample_advantages,
    weight_sums,
)

FORMS = list(WEIGHTINGS)


def weights(form, advantages, tokens, temperature=1.0):
    return AdvantageWeights.of(form, temperature, weight_sums(form, temperature, advantages, tokens))


def test_a_samples_advantage_is_the_mean_over_its_own_action_tokens():
    advantages = torch.tensor([[9.0, 1.0, 3.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[0, 1, 1], [0, 0, 0]])
    assert sample_advantages(advantages, mask).tolist() == [2.0, 0.0]


def test_a_group_of_equal_rewards_has_no_advantage():
    advantages, mask = torch.full((3, 2), 0.7), torch.ones(3, 2)
    spread = torch.tensor([0.0, 2e-9, 0.1])
    assert sample_advantages(advantages, mask, spread).tolist() == pytest.approx([0.0, 0.0, 0.7])


@pytest.mark.parametrize("form", FORMS)
@given(
    advantages=st.lists(st.floats(-3, 3), min_size=2, max_size=8),
    temperature=st.floats(0.1, 3),
    data=st.data(),
)
def test_the_mean_weight_over_what_a_step_counts_is_one(form, advantages, temperature, data):
    tokens = torch.tensor(
        data.draw(st.lists(st.integers(1, 50), min_size=len(advantages), max_size=len(advantages)))
    )
    values = torch.tensor(advantages, dtype=torch.float64)
    each = weights(form, values, tokens, temperature)(values)
    assert ((each * tokens).sum() / tokens.sum()).item() == pytest.approx(1.0)
    assert (each >= 0).all()
    assert each.isfinite().all()


@pytest.mark.parametrize("form", ["positive", "sigmoid", "exponential"])
def test_a_better_sample_never_weighs_less(form):
    advantages = torch.linspace(-3, 3, 20, dtype=torch.float64)
    each = weights(form, advantages, torch.ones(20))(advantages)
    assert (each.diff() >= 0).all()
    assert each[-1] > each[0]


def test_the_gate_is_the_sharpest_sigmoid():
    advantages = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    tokens = torch.ones(3)
    gate = weights("positive", advantages, tokens)(advantages)
    sharp = weights("sigmoid", advantages, tokens, temperature=1e-3)(advantages)
    torch.testing.assert_close(gate, sharp)
    assert gate.tolist() == pytest.approx([0.0, 1.0, 2.0])


@pytest.mark.parametrize("form", FORMS)
def test_groups_without_variance_weigh_all_alike(form):
    advantages = torch.zeros(4, dtype=torch.float64)
    assert weights(form, advantages, torch.tensor([1, 2, 3, 4]))(advantages).tolist() == pytest.approx(
        [1.0] * 4
    )


def test_a_batch_of_negative_advantages_falls_back_to_equal_weights():
    advantages = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    gate = weights("positive", advantages, torch.ones(2))
    assert gate.is_fallback
    assert gate(advantages).tolist() == [1.0, 1.0]
    assert not weights("sigmoid", advantages, torch.ones(2)).is_fallback


@given(st.integers(0, 100), st.integers(1, 5))
def test_the_split_into_micro_batches_does_not_matter(seed, cut):
    generator = torch.Generator().manual_seed(seed)
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    tokens = torch.randint(1, 9, (6,), generator=generator)
    parts = [
        weight_sums("exponential", 0.5, advantages[s], tokens[s]) for s in (slice(cut), slice(cut, None))
    ]
    torch.testing.assert_close(parts[0] + parts[1], weight_sums("exponential", 0.5, advantages, tokens))


def test_an_outlier_stays_finite():
    advantages = torch.tensor([1e6, 0.0], dtype=torch.float64)
    assert weights("exponential", advantages, torch.ones(2), temperature=0.1)(advantages).isfinite().all()


def test_the_effective_share_counts_a_sample_as_often_as_it_is_counted():
    # two of four samples, or three of six anchors, have all the weight
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert weights("positive", advantages, torch.ones(4)).effective_share == pytest.approx(0.5)
    assert weights("positive", advantages, torch.tensor([1, 1, 2, 2])).effective_share == pytest.approx(0.5)
    assert weights("positive", advantages, torch.tensor([2, 1, 1, 0])).effective_share == pytest.approx(0.75)
    assert weights("none", advantages, torch.ones(4)).effective_share == pytest.approx(1.0)
    assert weights("positive", -advantages.abs(), torch.ones(4)).effective_share == 1.0, "all count alike"


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.368), (0.8, 0.210)])
def test_exponential_weights_of_normal_advantages_leave_few_samples(temperature, share):
    # (E e^(a/t))^2 / E e^(2a/t) = e^(-1/t^2) for a of variance 1: quantiles of the normal law, finely
    levels = (torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000
    advantages = torch.special.ndtri(levels)
    found = weights("exponential", advantages, torch.ones(len(levels)), temperature).effective_share
    assert found == pytest.approx(share, abs=0.002)
