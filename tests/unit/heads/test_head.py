"""The chain: equal to drafting step by step, blind to padding and neighbours, exact in its positions."""

from __future__ import annotations

import copy

import pytest
import torch

from openrlhf_mtp.heads import block
from openrlhf_mtp.heads.attention import chain_attention_reference
from tests.unit.heads.tiny import DEPTHS, FAMILIES, drafted_step_by_step, random_head, random_inputs

# float32 rounding of two orders of summation, at states of size about 3
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_chain_equals_drafting_step_by_step_with_caches(family, num_layers):
    head = random_head(family, num_layers=num_layers)
    hidden, embeddings, positions, segments, _ = random_inputs()
    states = head(hidden, embeddings, positions, segments, DEPTHS)
    for row, anchor in [(0, 0), (0, 5), (1, 8)]:
        drafted = drafted_step_by_step(head, hidden[row], [e[row] for e in embeddings], anchor)
        for z, expected in zip(states, drafted, strict=True):
            torch.testing.assert_close(z[row, anchor], expected, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_chain_equals_itself_with_the_reference_attention(family, monkeypatch):
    head = random_head(family, num_layers=2)
    inputs = random_inputs()
    used = head(*inputs)
    monkeypatch.setattr(block, "chain_attention", chain_attention_reference)
    for z, expected in zip(used, head(*inputs), strict=True):
        torch.testing.assert_close(z, expected, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_either_side_changes_nothing(family):
    head = random_head(family)
    hidden, embeddings, positions, segments, _ = random_inputs(batch=1)
    plain = head(hidden, embeddings, positions, segments, DEPTHS)

    def padded(tensor, value):
        return torch.nn.functional.pad(tensor, (*(0, 0) * (tensor.dim() - 2), 4, 3), value=value)

    states = head(
        padded(hidden, torch.nan),
        [padded(e, torch.inf) for e in embeddings],
        padded(positions, 1),
        padded(segments, 0),
        DEPTHS,
    )
    for z, expected in zip(states, plain, strict=True):
        torch.testing.assert_close(z[:, 4:-3], expected, **TOLERANCE)
        assert z.isfinite().all()


def test_padding_gets_and_gives_no_gradient():
    head = random_head("qwen2")
    hidden, embeddings, positions, segments, _ = random_inputs(batch=1)
    segments = segments.clone()
    segments[:, :3] = 0
    hidden.requires_grad_()
    head(hidden, embeddings, positions, segments, DEPTHS)[-1][:, 3:].sum().backward()
    assert not hidden.grad[:, :3].any()
    assert hidden.grad[:, 3:].any()


def test_packed_samples_do_not_see_each_other():
    head = random_head("qwen3")
    hidden, embeddings, positions, segments, _ = random_inputs(batch=2)
    apart = head(hidden, embeddings, positions, segments, DEPTHS)
    packed = head(
        hidden.reshape(1, 18, -1),
        [e.reshape(1, 18, -1) for e in embeddings],
        positions.reshape(1, -1),
        torch.tensor([[1] * 9 + [2] * 9]),
        DEPTHS,
    )
    for z, expected in zip(packed, apart, strict=True):
        torch.testing.assert_close(z.view_as(expected), expected, **TOLERANCE)


def test_a_shorter_chain_is_the_beginning_of_a_longer_one():
    head = random_head("llama", num_layers=2)
    inputs = random_inputs()
    longer = head(*inputs)
    for z, expected in zip(head(*inputs[:-1], 2), longer, strict=False):
        torch.testing.assert_close(z, expected, **TOLERANCE)


def test_depth_two_does_not_see_what_later_anchors_read():
    head = random_head("qwen2")
    hidden, embeddings, positions, segments, _ = random_inputs(batch=1)
    before = head(hidden, embeddings, positions, segments, DEPTHS)
    hidden = hidden.clone()
    hidden[:, 6:] += 1.0
    for z, expected in zip(head(hidden, embeddings, positions, segments, DEPTHS), before, strict=True):
        torch.testing.assert_close(z[:, :6], expected[:, :6], rtol=0, atol=0)
        assert not torch.allclose(z[:, 6:], expected[:, 6:])


def test_rounding_the_head_to_bfloat16_leaves_its_rotary_frequencies_exact():
    # DeepSpeed casts the module with .bfloat16(); frequencies in bf16 would be off by 0.4 %, a full turn at 1,600
    head = random_head("qwen2")
    rounded = copy.deepcopy(head).bfloat16().float()
    like, positions = torch.zeros(1), torch.tensor([[1000]])
    for got, expected in zip(rounded._rotary(like, positions), head._rotary(like, positions), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_every_parameter_learns():
    head = random_head("qwen3", num_layers=2)
    sum(z.square().mean() for z in head(*random_inputs())).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []
