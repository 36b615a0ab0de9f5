"""Each objective against an independent float64 reference and finite differences."""

import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from openrlhf_mtp.config.mtp import Objective
from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.acceptance import entropy, expected_accepted, overlap
from openrlhf_mtp.losses.types import ObjectiveInput


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def reference_loss(name, draft, target, token, mask):
    """(loss_sum, loss_count) of numpy arrays [N, k, V], [N, k, V], [N, k], [N, k], written from the formulas."""
    total, count = 0.0, 0.0
    for n in range(len(draft)):
        k = draft.shape[1]
        q = [softmax(row) for row in draft[n]]
        p = [softmax(row) for row in target[n]]
        alpha = [np.minimum(a, b).sum() for a, b in zip(p, q, strict=True)]
        if name == "e2e_tv":
            if mask[n].all():
                total += 1 - sum(np.prod(alpha[: j + 1]) for j in range(k)) / k
                count += 1
            continue
        for j in range(k):
            if mask[n, j]:
                losses = {
                    "ce": -np.log(q[j][token[n, j]]),
                    "kl": (p[j] * (np.log(p[j]) - np.log(q[j]))).sum(),
                    "tv": 0.5 * np.abs(p[j] - q[j]).sum(),
                }
                total += losses[name] / k
                count += 1 / k
    return total, count


def random_input(seed, anchors=5, depths=3, vocab=7, dtype=torch.float64, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    draft, target = (
        spread * torch.randn(anchors, depths, vocab, generator=generator, dtype=dtype) for _ in range(2)
    )
    tokens = torch.randint(vocab, (anchors, depths), generator=generator)
    inside = torch.randint(1, depths + 1, (anchors, 1), generator=generator)
    inside[0] = depths
    return ObjectiveInput(draft.requires_grad_(), target, tokens, torch.arange(depths) < inside)


def test_every_objective_of_a_job_file_is_here():
    assert set(OBJECTIVES) == set(get_args(Objective))


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), depths=st.integers(1, 4), vocab=st.integers(2, 9))
def test_the_loss_equals_the_formula(name, seed, depths, vocab):
    inputs = random_input(seed, depths=depths, vocab=vocab)
    output = OBJECTIVES[name](inputs)
    arrays = [
        t.detach().numpy() for t in (inputs.draft_logits, inputs.target_logits, inputs.tokens, inputs.mask)
    ]
    total, count = reference_loss(name, *arrays)
    np.testing.assert_allclose([output.loss_sum.item(), output.loss_count.item()], [total, count], rtol=1e-10)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_equals_finite_differences(name, seed):
    # min(p, q) has kinks where p = q; at random points none lies within gradcheck's step of 1e-6
    inputs = random_input(seed)

    def loss(draft):
        fields = (inputs.target_logits, inputs.tokens, inputs.mask)
        return OBJECTIVES[name](ObjectiveInput(draft, *fields)).loss_sum

    assert gradcheck(loss, (inputs.draft_logits,), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_uncounted_entries_have_no_gradient(name):
    inputs = random_input(1)
    OBJECTIVES[name](inputs).loss_sum.backward()
    assert not inputs.draft_logits.grad[~inputs.mask].any()
    assert inputs.draft_logits.grad[inputs.mask].any()


@pytest.mark.parametrize("name", ["kl", "tv", "e2e_tv"])
def test_a_head_equal_to_the_policy_has_loss_zero(name):
    inputs = random_input(2)
    same = ObjectiveInput(inputs.target_logits.clone(), inputs.target_logits, inputs.tokens, inputs.mask)
    assert OBJECTIVES[name](same).loss_sum.abs() < 1e-12


@pytest.mark.parametrize("name", ["tv", "e2e_tv"])
def test_a_tie_counts_as_accepted(name):
    # one tie, at token 0; autograd through torch.minimum would give half of its gradient to p
    target = torch.tensor([[[0.0, 1.0, -1.0]]], dtype=torch.float64)
    draft = target[..., [0, 2, 1]].clone().requires_grad_()
    p, q = target.softmax(-1)[0, 0], draft.detach().softmax(-1)[0, 0]
    assert p[0] == q[0]
    inputs = ObjectiveInput(
        draft, target, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
    )
    OBJECTIVES[name](inputs).loss_sum.backward()
    covered = q[0] + q[1]  # the tie belongs to what is surely accepted; q[2] > p[2]
    expected = q * (covered - 1 + torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(draft.grad[0, 0], expected)


def test_a_rejected_depth_neither_divides_by_zero_nor_silences_the_others():
    # float32 makes alpha_2 exactly 0 here; its own gradient weight is alpha_1 (1 + alpha_3), not 0/0
    alpha = torch.tensor([[0.5, 0.0, 0.25]], requires_grad=True)
    expected_accepted(alpha).backward()
    torch.testing.assert_close(alpha.grad, torch.tensor([[1.0, 0.5 * 1.25, 0.0]]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_expected_accepted_is_the_mean_over_all_outcomes(alphas):
    mean = 0.0
    for outcome in itertools.product([True, False], repeat=len(alphas)):
        probability = np.prod([a if ok else 1 - a for a, ok in zip(alphas, outcome, strict=True)])
        accepted = len(list(itertools.takewhile(bool, outcome)))
        mean += probability * accepted
    got = expected_accepted(torch.tensor(alphas, dtype=torch.float64)).item()
    assert got == pytest.approx(mean, abs=1e-12)


def test_overlap_is_what_rejection_sampling_accepts():
    generator = torch.Generator().manual_seed(0)
    draft, target = (2 * torch.randn(6, generator=generator) for _ in range(2))
    p, q = target.softmax(0), draft.softmax(0)
    drafted = torch.multinomial(q, 200_000, replacement=True, generator=generator)
    accepted = torch.rand(len(drafted), generator=generator) * q[drafted] < p[drafted]
    # standard error of the frequency is at most 0.0011
    assert accepted.double().mean().item() == pytest.approx(overlap(draft, target).item(), abs=0.005)


def test_extreme_logits_stay_finite():
    draft = torch.tensor([[[1e4, 0.0, -1e4]]], requires_grad=True)
    target = torch.tensor([[[-1e4, 0.0, 1e4]]])
    inputs = ObjectiveInput(
        draft, target, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
    )
    for objective in OBJECTIVES.values():
        (gradient,) = torch.autograd.grad(objective(inputs).loss_sum, draft, retain_graph=True)
        assert gradient.isfinite().all()
    assert entropy(target).item() == 0.0
