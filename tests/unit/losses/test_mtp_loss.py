"""The batch loss: chunks, splits, what is detached, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.kernels.projection import Scratch
from openrlhf_mtp.losses.kernels.rows import Shard
from openrlhf_mtp.losses.mixture import mixture
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput, OutputHead, mtp_loss
from openrlhf_mtp.losses.targets import from_hidden, from_logits, top_k
from tests.processes import on_ranks
from tests.unit.losses.batches import VOCAB, WIDTH, on_logits, random_batch, wide_vocabulary
from tests.unit.losses.largest import Largest, Peak

TEMPERATURE = 0.7


def sums(output: MTPLossOutput) -> torch.Tensor:
    return torch.cat([part.detach().flatten() for part in output.sums])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_batch_loss_is_the_objective_on_plainly_gathered_logits(name):
    batch = random_batch()
    anchors = batch.anchors()
    states = torch.stack([z.flatten(0, 1)[anchors.index] for z in batch.states], 1)
    targets = batch.hidden.flatten(0, 1)[anchors.target_index]
    scaled = batch.output_weight.T / TEMPERATURE
    plain = on_logits(name, states @ scaled, targets @ scaled, anchors.tokens, anchors.mask)
    output = batch.loss(name, temperature=TEMPERATURE)
    torch.testing.assert_close(sums(output), sums(plain))
    assert output.sums.depth_count.tolist() == anchors.mask.sum(0).tolist()
    torch.testing.assert_close(
        batch.states_gradient(name), list(torch.autograd.grad(plain.loss_sum, batch.states))
    )


def test_logits_of_the_policys_own_forward_serve_as_targets_packed_or_not():
    batch = random_batch()
    scaled = batch.hidden @ batch.output_weight.T / TEMPERATURE
    plain = from_logits(torch.nn.functional.pad(scaled, (0, 3), value=50.0), vocab_size=VOCAB)
    present = (batch.segment_ids != 0).flatten()
    packed = from_logits(scaled.flatten(0, 1)[present][None])
    where = batch.anchors().target_index.flatten()
    torch.testing.assert_close(plain(where, Scratch()), scaled.flatten(0, 1)[where])
    place_in_row = (present.long().cumsum(0) - 1)[where]
    torch.testing.assert_close(packed(place_in_row, Scratch()), scaled.flatten(0, 1)[where])


@pytest.mark.parametrize("count", [1, 4, VOCAB, VOCAB + 5])
def test_kl_to_the_policys_likeliest_tokens_is_the_soft_cross_entropy_with_them(count):
    generator = torch.Generator().manual_seed(0)
    draft, target = (3 * torch.randn(5, 1, VOCAB, generator=generator).double() for _ in range(2))
    draft.requires_grad_()
    whole = target.clone()
    kept = target.log_softmax(-1).exp()
    kept = kept * (kept >= kept.topk(min(count, VOCAB), dim=-1).values[..., -1:])
    expected = -(kept / kept.sum(-1, keepdim=True) * draft.log_softmax(-1)).sum()
    flat = target.flatten(0, 1)
    cut = top_k(lambda index, _: flat[index], count)(torch.arange(5), Scratch())
    one = torch.zeros(5, 1, dtype=torch.long)
    output = on_logits("kl", draft, cut[:, None], one, one == 0)
    torch.testing.assert_close(
        torch.autograd.grad(output.loss_sum, draft), torch.autograd.grad(expected, draft)
    )
    assert torch.equal(target, whole), "the policy's own logits are left alone"


def test_cutting_the_policy_needs_a_token():
    batch = random_batch()
    with pytest.raises(ValueError, match="count: got 0, expected 1 or more"):
        top_k(from_hidden(batch.hidden, batch.output_weight, 1.0), 0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_through_the_chunks_equals_finite_differences(name):
    if name == "lk_hybrid":
        pytest.skip("its weight is held constant: finite differences of the whole are another function")
    batch = random_batch(rows=1, length=9)

    def loss(*states):
        return replace(batch, states=list(states)).loss(name, chunk_anchors=1).loss_sum

    assert gradcheck(loss, tuple(batch.states), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_the_chunk_size_does_not_matter(name, chunk):
    batch = random_batch()
    whole, chunked = batch.loss(name), batch.loss(name, chunk_anchors=chunk)
    torch.testing.assert_close(sums(whole), sums(chunked))
    (expected,) = torch.autograd.grad(whole.loss_sum, batch.states[1])
    (got,) = torch.autograd.grad(chunked.loss_sum, batch.states[1])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_operation_makes_more_logits_than_a_chunk_has(name):
    batch = wide_vocabulary(random_batch(rows=6))
    vocab, anchors, depths = len(batch.output_weight), len(batch.anchors().mask), len(batch.states)
    assert vocab > anchors * depths * WIDTH / 2, "hidden states must not be what is largest"
    with Largest() as largest:
        batch.loss(name, chunk_anchors=2).loss_sum.backward()
    # two anchors' drafts at all depths, or the output head itself
    assert largest.numel <= max(2 * depths * vocab, vocab * WIDTH) < anchors * depths * vocab / 4


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_loss_holds_one_gradient_beside_the_chains_states(share):
    """Not the states once more in one tensor, nor once more without the grid's padding."""
    batch, width = random_batch(rows=10, length=200), 64
    anchors = batch.anchors(fraction=share, seed=0)
    states = [torch.randn(*anchors.grid.shape, width).requires_grad_() for _ in batch.states]
    weight, hidden = torch.randn(VOCAB, width), torch.randn(*batch.input_ids.shape, width)
    head = OutputHead.of(weight, 1.0, chunk_logits=40 * len(states) * VOCAB)
    targets = from_hidden(hidden, weight, 1.0)
    with Peak() as peak:
        output = mtp_loss(states, anchors, targets, head, mixture({"kl": 1.0}, OBJECTIVES))
    of_states = sum(z.numel() * z.element_size() for z in states)
    per_anchor = 8 * (5 * len(states) + 12)  # figures that are kept, and indices
    assert peak.nbytes < 2.1 * of_states + per_anchor * len(anchors.mask) < 2.6 * of_states
    assert output.loss_sum.requires_grad


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_split_into_micro_batches_does_not_matter(name, parts):
    batch = random_batch(rows=6)
    whole = batch.loss(name)
    micro = [batch.rows(slice(n * 6 // parts, (n + 1) * 6 // parts)) for n in range(parts)]
    outputs = [part.loss(name) for part in micro]
    torch.testing.assert_close(torch.stack([sums(o) for o in outputs]).sum(0), sums(whole))
    total = torch.stack([o.loss_sum for o in outputs]).sum()
    torch.testing.assert_close(
        torch.autograd.grad(total, batch.states), torch.autograd.grad(whole.loss_sum, batch.states)
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_of_the_trunk_gets_a_gradient(name):
    batch = random_batch()
    batch.hidden.requires_grad_()
    batch.output_weight.requires_grad_()
    for attached in ("hidden", "output_weight"):
        others = {"hidden", "output_weight"} - {attached}
        with pytest.raises(AssertionError, match="constants"):
            replace(batch, **{part: getattr(batch, part).detach() for part in others}).loss(name)
    detached = replace(batch, hidden=batch.hidden.detach(), output_weight=batch.output_weight.detach())
    detached.loss(name).loss_sum.backward()
    assert batch.hidden.grad is None
    assert batch.output_weight.grad is None
    assert all(z.grad is not None and z.grad.any() for z in batch.states)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), garbage=st.integers(0, 10_000))
def test_garbage_outside_the_responses_changes_nothing(name, seed, garbage):
    batch = random_batch(seed)
    generator = torch.Generator().manual_seed(garbage)
    response = batch.action_mask
    # a state is read at anchors (one before each response token), a target from response tokens but the last
    after = torch.nn.functional.pad(response[:, 1:], (0, 1))
    spoiled = replace(
        batch,
        states=[torch.where(after[..., None], z, torch.nan).detach().requires_grad_() for z in batch.states],
        hidden=torch.where((response & after)[..., None], batch.hidden, torch.nan),
        input_ids=torch.where(
            response, batch.input_ids, torch.randint(VOCAB, response.shape, generator=generator)
        ),
    )
    torch.testing.assert_close(sums(spoiled.loss(name)), sums(batch.loss(name)), rtol=0, atol=0)
    for got, expected in zip(spoiled.states_gradient(name), batch.states_gradient(name), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_packed_segments_equal_separate_rows(name):
    batch = random_batch(rows=2)
    packed = replace(
        batch,
        states=[z.reshape(1, -1, WIDTH) for z in batch.states],
        hidden=batch.hidden.reshape(1, -1, WIDTH),
        input_ids=batch.input_ids.reshape(1, -1),
        action_mask=batch.action_mask.reshape(1, -1),
        segment_ids=(batch.segment_ids * torch.tensor([[1], [2]])).reshape(1, -1),
    )
    torch.testing.assert_close(sums(packed.loss(name)), sums(batch.loss(name)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_padded_vocabulary_rows_are_cut_off(name):
    batch = random_batch()
    padded = replace(batch, output_weight=torch.cat([batch.output_weight, 5 * torch.ones(5, WIDTH).double()]))
    torch.testing.assert_close(sums(padded.loss(name, vocab_size=VOCAB)), sums(batch.loss(name)))
    assert not torch.allclose(sums(padded.loss(name)), sums(batch.loss(name)))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_temperature_divides_both_sides_once(name):
    batch = random_batch()
    scaled = replace(batch, output_weight=batch.output_weight / 0.5)
    torch.testing.assert_close(
        sums(batch.loss(name, temperature=0.5)), sums(scaled.loss(name, temperature=1.0))
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_without_anchors_is_zero_and_still_reaches_the_head(name):
    # every rank must run the same backward, also one whose micro-batch holds only one-token responses
    batch = random_batch()
    empty = replace(batch, action_mask=torch.zeros_like(batch.action_mask))
    output = empty.loss(name)
    assert not sums(output).any()
    assert all(g is not None and not g.any() for g in torch.autograd.grad(output.loss_sum, batch.states))


def test_measuring_without_gradients_gives_the_same_sums():
    batch = random_batch()
    with torch.no_grad():
        quiet = batch.loss("e2e_tv")
    torch.testing.assert_close(sums(quiet), sums(batch.loss("e2e_tv")))
    assert not quiet.loss_sum.requires_grad


def test_bfloat16_states_are_scored_in_float32():
    batch = random_batch()
    low = replace(
        batch,
        states=[z.detach().bfloat16().requires_grad_() for z in batch.states],
        hidden=batch.hidden.bfloat16(),
        output_weight=batch.output_weight.bfloat16(),
    )
    output = low.loss("kl")
    assert output.loss_sum.dtype == torch.float32
    assert low.states_gradient("kl")[0].dtype == torch.bfloat16
    # bf16 has 8 bits: logits of size ~10 are off by ~0.03, and so is a mean KL of ~8 nats at most
    assert output.loss_sum.item() == pytest.approx(batch.loss("kl").loss_sum.item(), rel=0.02)


def test_records_hold_every_anchors_entropy_and_overlap():
    batch = random_batch()
    output = batch.loss("kl", chunk_anchors=4)
    mask = output.anchors.mask
    torch.testing.assert_close((output.records.alpha * mask).sum(0), output.sums.alpha_sum)
    torch.testing.assert_close((output.records.greedy * mask).sum(0), output.sums.greedy_sum)
    torch.testing.assert_close(output.records.entropy[:, 0].sum(), output.sums.entropy_sum)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_without_a_distribution_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature: got"):
        random_batch().loss("tv", temperature=temperature)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_share_of_the_anchors_estimates_the_whole_without_bias(name):
    batch = random_batch(rows=6, length=30)
    whole = batch.loss(name).loss_sum.item()
    draws = [batch.loss(name, choice={"fraction": 0.5, "seed": draw}).loss_sum.item() for draw in range(300)]
    mean, error = np.mean(draws), np.std(draws) / len(draws) ** 0.5
    assert abs(mean - whole) < 4 * error
    assert np.std(draws) > 0.0


def test_a_share_of_the_anchors_keeps_the_reported_means():
    batch = random_batch(rows=6, length=30)
    part = batch.loss("tv", choice={"fraction": 0.5, "seed": 1})
    assert 0.2 < len(part.anchors.index) / len(batch.loss("tv").anchors.index) < 0.8
    alpha = part.records.alpha[part.anchors.mask]
    assert (part.sums.alpha_sum.sum() / part.sums.depth_count.sum()).item() == pytest.approx(
        alpha.mean().item()
    )
    assert (part.sums.loss_sum / part.sums.loss_count).item() == pytest.approx(1 - alpha.mean().item())


SHARE_OF_THE_FIRST = 0.2


def _own_part() -> dict[str, list[np.ndarray]]:
    """The loss and its gradient on this rank: a fifth of the vocabulary for the first, the rest for the second."""
    torch.distributed.init_process_group("gloo")
    batch = random_batch()
    cut = int(VOCAB * SHARE_OF_THE_FIRST)
    own = slice(0, cut) if torch.distributed.get_rank() == 0 else slice(cut, None)
    part = replace(batch, output_weight=batch.output_weight[own])
    shard = Shard(own.start, torch.distributed.group.WORLD)
    found = {}
    for name in OBJECTIVES:
        # the larger part holds two anchors' logits: were chunks made by the own part, ranks would wait for each other
        output = part.loss(name, shard=shard, chunk_logits=2 * len(batch.states) * (VOCAB - cut))
        gradient = torch.autograd.grad(output.loss_sum, part.states)
        found[name] = [sums(output).numpy(), *(piece.numpy() for piece in gradient)]
    torch.distributed.destroy_process_group()
    return found


def test_a_vocabulary_in_unequal_parts_gives_the_loss_and_the_gradient_of_the_whole():
    parts = on_ranks(2, _own_part)
    batch = random_batch()
    for name in OBJECTIVES:
        expected = [sums(batch.loss(name)), *batch.states_gradient(name)]
        for part in parts:
            for got, wanted in zip(part[name], expected, strict=True):
                torch.testing.assert_close(torch.from_numpy(got), wanted)
