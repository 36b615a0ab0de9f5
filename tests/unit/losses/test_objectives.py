"""Each objective against an independent float64 reference and finite differences."""

import itertools
import re
from pathlib import Path
from typing import get_args
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from openrlhf_mtp import losses
from openrlhf_mtp.config.objectives import Objective
from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.acceptance import expected_accepted
from openrlhf_mtp.losses.mixture import mixture
from openrlhf_mtp.losses.mtp_loss import depth_weights
from openrlhf_mtp.losses.types import anchor_counts
from tests.unit.losses import reference
from tests.unit.losses.batches import on_logits

BY_DEPTH = [name for name in OBJECTIVES if not name.startswith("e2e_tv")]


def random_rows(seed, anchors=5, depths=3, vocab=7, dtype=torch.float64, spread=2.0):
    """Draft logits, target logits, tokens and mask."""
    generator = torch.Generator().manual_seed(seed)
    draft, target = (
        spread * torch.randn(anchors, depths, vocab, generator=generator, dtype=dtype) for _ in range(2)
    )
    tokens = torch.randint(vocab, (anchors, depths), generator=generator)
    inside = torch.randint(1, depths + 1, (anchors, 1), generator=generator)
    inside[0] = depths
    return draft.requires_grad_(), target, tokens, torch.arange(depths) < inside


def test_every_objective_of_a_job_file_is_here():
    assert set(OBJECTIVES) == set(get_args(Objective))


def test_every_file_with_an_objective_is_an_entry_of_its_name():
    written = {
        path.stem
        for path in Path(losses.__file__).parent.glob("*.py")
        if re.search(rf"^def {path.stem}\(inputs: ObjectiveInput\)", path.read_text(encoding="utf-8"), re.M)
    }
    assert written == set(OBJECTIVES)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), depths=st.integers(1, 4), vocab=st.integers(2, 9))
def test_the_loss_equals_the_formula(name, seed, depths, vocab):
    rows = random_rows(seed, depths=depths, vocab=vocab)
    sums = on_logits(name, *rows).sums._asdict()
    expected = reference.sums(name, *(t.detach().numpy() for t in rows))
    assert sums.keys() == expected.keys()
    for field, value in sums.items():
        np.testing.assert_allclose(value.detach().numpy(), expected[field], rtol=1e-9, err_msg=field)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_anchors_count_is_what_it_adds_to_the_count_of_all(name):
    rows, decay = random_rows(0, anchors=8), depth_weights(3, 0.6)
    counts = anchor_counts(OBJECTIVES[name], rows[-1], decay)
    for n, anchor in enumerate(counts.tolist()):
        one = [t[n : n + 1].detach() for t in rows]
        assert anchor == pytest.approx(on_logits(name, *one, depth_decay=0.6).sums.loss_count.item())
    assert counts[0] == pytest.approx(1.0), "all depths inside"


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_equals_finite_differences(name, seed):
    # min(p, q) has kinks where p = q; at random points none lies within gradcheck's step of 1e-6
    draft, *rest = random_rows(seed)
    if name == "lk_hybrid":  # its weight is held constant, which finite differences of the whole would not
        return _hybrid_holds_its_weight(draft, rest)
    assert gradcheck(lambda z: on_logits(name, z, *rest).loss_sum, (draft,), eps=1e-6, atol=1e-7)


def _hybrid_holds_its_weight(draft, rest):
    alpha = on_logits("tv", draft, *rest).records.alpha
    share = (-3.0 * alpha).exp()
    gradients = {
        name: torch.autograd.grad(on_logits(name, draft, *rest).loss_sum, draft)[0]
        for name in ("kl", "tv", "lk_hybrid")
    }
    expected = share[..., None] * gradients["kl"] + (1 - share)[..., None] * gradients["tv"]
    torch.testing.assert_close(gradients["lk_hybrid"], expected)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_uncounted_entries_have_no_gradient(name):
    draft, target, tokens, mask = random_rows(1)
    on_logits(name, draft, target, tokens, mask).loss_sum.backward()
    assert not draft.grad[~mask].any()
    assert draft.grad[mask].any()


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "ce"])
def test_a_head_equal_to_the_policy_has_loss_zero(name):
    _, target, tokens, mask = random_rows(2)
    assert on_logits(name, target.clone(), target, tokens, mask).loss_sum.abs() < 1e-12


@pytest.mark.parametrize("name", ["tv", "e2e_tv"])
def test_a_tie_counts_as_accepted(name):
    # one tie, at token 0; autograd through torch.minimum would give half of its gradient to p
    target = torch.tensor([[[0.0, 1.0, -1.0]]], dtype=torch.float64)
    draft = target[..., [0, 2, 1]].clone().requires_grad_()
    p, q = target.softmax(-1)[0, 0], draft.detach().softmax(-1)[0, 0]
    assert p[0] == q[0]
    one = torch.zeros(1, 1, dtype=torch.long)
    on_logits(name, draft, target, one, one == 0).loss_sum.backward()
    overlap_mass = q[0] + q[1]  # the tie belongs to what is surely accepted; q[2] > p[2]
    expected = q * (overlap_mass - 1 + torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(draft.grad[0, 0], expected)


def test_negative_log_acceptance_pulls_a_cold_head_where_tv_does_not():
    # p and q almost disjoint: the TV gradient is as small as the overlap, this one is not
    draft = torch.tensor([[[12.0, 0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[0.0, 12.0, 0.0]]], dtype=torch.float64)
    one = torch.zeros(1, 1, dtype=torch.long)
    pulls = {
        name: torch.autograd.grad(on_logits(name, draft, target, one, one == 0).loss_sum, draft)[0]
        .abs()
        .sum()
        for name in ("tv", "nla")
    }
    assert pulls["tv"] < 1e-4
    assert 0.5 < pulls["nla"] <= 2.0


@pytest.mark.parametrize("name", BY_DEPTH)
def test_depth_weights_weigh_depths(name):
    draft, target, tokens, _ = random_rows(3, depths=3)
    everything = torch.ones_like(tokens, dtype=torch.bool)
    parts = [
        on_logits(name, draft[:, [j]], target[:, [j]], tokens[:, [j]], everything[:, [j]]).loss_sum
        for j in range(3)
    ]
    weights = torch.tensor([1.0, 0.6, 0.36], dtype=torch.float64)
    weights = weights / weights.sum()
    expected = sum(w * part for w, part in zip(weights, parts, strict=True))
    output = on_logits(name, draft, target, tokens, everything, depth_decay=0.6)
    torch.testing.assert_close(output.loss_sum, expected)
    torch.testing.assert_close(output.sums.loss_count, torch.tensor(len(draft), dtype=torch.float64))


@given(st.integers(1, 16), st.floats(0.1, 1.0))
def test_depth_weights_have_mean_one_and_decay(depths, decay):
    weights = depth_weights(depths, decay)
    assert weights.mean().item() == pytest.approx(1.0)
    ratios = (weights[1:] / weights[:-1]).tolist()
    assert ratios == pytest.approx([decay] * (depths - 1))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_row_weight_scales_what_its_anchor_adds(name):
    rows = random_rows(4)
    weight = torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
    singles = [on_logits(name, *(t[[n]] for t in rows)).loss_sum for n in range(5)]
    expected = sum(w * single for w, single in zip(weight, singles, strict=True))
    output = on_logits(name, *rows, row_weight=weight)
    torch.testing.assert_close(output.loss_sum, expected)
    # what is reported by depth is not weighted
    torch.testing.assert_close(output.sums.depth_loss_sum, on_logits(name, *rows).sums.depth_loss_sum)


def test_a_mixture_is_the_weighted_sum_of_its_parts():
    rows = random_rows(5)
    combined = mixture({"kl": 0.3, "e2e_tv": 0.7}, OBJECTIVES)

    with mock.patch.dict(OBJECTIVES, {"mixed": combined}):
        got = on_logits("mixed", *rows)
    kl, e2e_tv = (on_logits(name, *rows) for name in ("kl", "e2e_tv"))
    expected = 0.3 * kl.loss_sum + 0.7 * e2e_tv.loss_sum
    torch.testing.assert_close(got.loss_sum, expected)
    torch.testing.assert_close(
        torch.autograd.grad(got.loss_sum, rows[0]), torch.autograd.grad(expected, rows[0])
    )
    torch.testing.assert_close(
        got.sums.depth_loss_sum, 0.3 * kl.sums.depth_loss_sum + 0.7 * e2e_tv.sums.depth_loss_sum
    )


def test_a_mixture_counts_an_anchor_by_the_weights_of_the_parts_that_count_it():
    *_, mask = random_rows(5)  # the first anchor is whole; of the others some end before the last depth
    parts = {"kl": 0.2, "e2e_tv": 0.6}
    decay = depth_weights(3, 0.6)  # which end-to-end objectives ignore
    kl, e2e_tv = (anchor_counts(OBJECTIVES[name], mask, decay) for name in parts)
    assert (kl != e2e_tv).any()
    counts = anchor_counts(mixture(parts, OBJECTIVES), mask, decay)
    torch.testing.assert_close(counts, 0.25 * kl + 0.75 * e2e_tv)


@pytest.mark.parametrize("parts", [{}, {"kl": 0.0}, {"kl": -1.0}])
def test_a_mixture_without_weight_is_refused(parts):
    with pytest.raises(ValueError, match="expected at least one name with a positive weight"):
        mixture(parts, OBJECTIVES)


def test_an_unknown_objective_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="got 'mse', expected one of ce, kl, reverse_kl, tv, e2e_tv, e2e_tv_sampled, nla"
    ):
        mixture({"mse": 1.0}, OBJECTIVES)


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


def test_overlap_and_greedy_figure_are_acceptance_probabilities():
    generator = torch.Generator().manual_seed(0)
    draft, target = (2 * torch.randn(1, 1, 6, generator=generator) for _ in range(2))
    one = torch.zeros(1, 1, dtype=torch.long)
    records = on_logits("tv", draft, target, one, one == 0).records
    p, q = target[0, 0].softmax(0), draft[0, 0].softmax(0)
    drafted = torch.multinomial(q, 200_000, replacement=True, generator=generator)
    accepted = torch.rand(len(drafted), generator=generator) * q[drafted] < p[drafted]
    # standard error of the frequency is at most 0.0011
    assert accepted.double().mean().item() == pytest.approx(records.alpha.item(), abs=0.005)
    assert records.greedy.item() == pytest.approx(p[q.argmax()].item(), rel=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_extreme_logits_stay_finite(name):
    draft = torch.tensor([[[1e4, 0.0, -1e4]]], requires_grad=True)
    one = torch.zeros(1, 1, dtype=torch.long)
    for target in ([[-1e4, 0.0, 1e4]], [[float("-inf"), 0.0, 1.0]]):
        output = on_logits(name, draft, torch.tensor([target]), one, one == 0)
        (gradient,) = torch.autograd.grad(output.loss_sum, draft)
        assert gradient.isfinite().all()
        assert output.loss_sum.isfinite()


@pytest.mark.parametrize("left", [1, 2, 3])
def test_near_the_end_of_a_response_the_end_to_end_loss_is_that_of_the_depths_left(left):
    draft, target, tokens, _ = random_rows(6, depths=3)
    inside = (torch.arange(3) < left).expand(len(draft), 3)
    short = [values[:, :left] for values in (draft, target, tokens, inside)]
    output, expected = on_logits("e2e_tv", draft, target, tokens, inside), on_logits("e2e_tv", *short)
    torch.testing.assert_close(output.sums.loss_count, expected.sums.loss_count * left / 3)
    (got,) = torch.autograd.grad(output.loss_sum, draft, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.loss_sum * left / 3, draft)
    torch.testing.assert_close(got, wanted)
    assert got[:, :left].any(dim=-1).all()
