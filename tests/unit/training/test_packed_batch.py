"""A packed micro-batch trains the head like the padded one: the same loss, gradient, records and anchors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.losses.packing import Packing
from openrlhf_mtp.losses.targets import from_logits
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_metrics import anchor_records
from tests.unit.heads.tiny import VOCAB, WIDTH
from tests.unit.training.test_head_trainer import TEMPERATURE, random_batch, trainer


def packed(batch: HeadBatch) -> HeadBatch:
    packing = Packing.of(batch.attention_mask)
    parts = (batch.sequences, batch.attention_mask, batch.action_mask, batch.hidden)
    return HeadBatch(*map(packing.packed, parts), packing=packing)


@st.composite
def padded_batches(draw) -> HeadBatch:
    """Samples of other lengths, padded on both sides: a prompt, then a response."""
    rows = draw(
        st.lists(
            st.tuples(*[st.integers(0, 3), st.integers(1, 4), st.integers(1, 9)]), min_size=1, max_size=4
        )
    )
    length = max(map(sum, rows)) + draw(st.integers(0, 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    attention, actions = torch.zeros(2, len(rows), length, dtype=torch.long)
    for row, (left, prompt, response) in enumerate(rows):
        attention[row, left : left + prompt + response] = 1
        actions[row, left + prompt : left + prompt + response] = 1
    return HeadBatch(
        torch.randint(VOCAB, (len(rows), length), generator=generator),
        attention,
        actions.bool(),
        torch.randn(len(rows), length, WIDTH, generator=generator),
    )


def test_a_row_holds_the_samples_one_after_another_and_leads_back():
    batch = random_batch(rows=2)
    row = packed(batch)
    lengths = batch.attention_mask.sum(1).tolist()
    assert row.segment_ids.tolist() == [[1] * lengths[0] + [2] * lengths[1]]
    assert row.position_ids.tolist() == [[*range(lengths[0]), *range(lengths[1])]]
    assert row.packing is not None
    back = row.packing.padded(row.hidden)
    torch.testing.assert_close(back, batch.hidden * batch.attention_mask[..., None], rtol=0, atol=0)


@settings(max_examples=40, deadline=None)
@given(padded_batches(), st.sampled_from([1.0, 0.5]), st.integers(0, 9))
def test_the_same_anchors_are_chosen_and_have_the_same_places_in_openrlhfs_layout(batch, fraction, seed):
    one, other = (each.anchors(3, fraction=fraction, seed=seed) for each in (batch, packed(batch)))
    for name in ("row", "tokens", "mask", "column"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    assert one.columns == other.columns == (len(batch.sequences), batch.sequences.shape[1] - 1)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("part", [2048, 7])
def test_loss_gradient_and_records_are_those_of_the_padded_batch(fraction, part):
    own, batch = trainer(objective="kl", anchor_fraction=fraction), random_batch()
    weight = torch.tensor([0.5, 1.5, 2.0, 0.25])
    outputs, gradients = [], []
    for each in (batch, packed(batch)):
        own.head.part = part
        own.head.zero_grad()
        output = own.loss(each, row_weight=weight)
        output.loss_sum.backward()
        outputs.append(output)
        gradients.append([p.grad.clone() for p in own.head.parameters() if p.grad is not None])
    for sums, expected in zip(outputs[1].sums, outputs[0].sums, strict=True):
        torch.testing.assert_close(sums, expected)
    for records in zip(*map(anchor_records, outputs), strict=True):
        assert records[0] == records[1]
    for got, expected in zip(gradients[1], gradients[0], strict=True):
        assert (got - expected).norm() <= 1e-5 * max(1.0, float(expected.norm()))


def test_the_metrics_are_those_of_the_padded_batch():
    batch = random_batch()
    rows = []
    for each in (batch, packed(batch)):
        own = trainer()
        own.accumulate(each, 1.0)
        row = own.drain()
        del row["time/mtp_s"]
        rows.append(row)
    assert rows[1] == pytest.approx(rows[0], rel=1e-5)


def test_targets_of_the_packed_row_are_read_by_its_own_positions():
    batch = random_batch()
    row = packed(batch)
    assert row.packing is not None
    logits = (batch.hidden @ trainer().trunk.output_head.weight.T / TEMPERATURE).detach()
    found = [
        trainer().loss(replace(each, targets=from_logits(of))).sums.alpha_sum
        for each, of in ((batch, logits), (row, row.packing.packed(logits)))
    ]
    torch.testing.assert_close(found[1], found[0])
