"""The chain: equal to drafting step by step, blind to padding and neighbors, exact in its positions."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.heads import block
from openrlhf_mtp.heads.grid import AnchorGrid
from tests.unit.heads.attention_reference import chain_attention_reference
from tests.unit.heads.tiny import (
    DEPTHS,
    FAMILIES,
    WIDTH,
    drafted_step_by_step,
    random_head,
    random_inputs,
)

# float32 rounding of two orders of summation, at states of size about 3
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_the_chain_equals_drafting_step_by_step_with_caches(family, num_blocks):
    head = random_head(family, num_blocks=num_blocks)
    hidden, embeddings, positions, segments, _ = random_inputs()
    states = head(hidden, embeddings, positions, segments, DEPTHS)
    for row, anchor in [(0, 0), (0, 5), (1, 8)]:
        drafted = drafted_step_by_step(head, hidden[row], [e[row] for e in embeddings], anchor)
        for z, expected in zip(states, drafted, strict=True):
            torch.testing.assert_close(z[row, anchor], expected, **TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_chain_equals_itself_with_the_reference_attention(family, monkeypatch):
    head = random_head(family, num_blocks=2)
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
    head = random_head("llama", num_blocks=2)
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
    head = random_head("qwen3", num_blocks=2)
    sum(z.square().mean() for z in head(*random_inputs())).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


def with_float64_norms(head):
    """The same head in float64 throughout: the families' norms compute in float32 whatever they are given."""
    for parent in list(head.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm).__name__.endswith("RMSNorm"):
                exact = torch.nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon)
                exact.weight = norm.weight
                setattr(parent, name, exact)
    return head.double()


@st.composite
def batches(draw):
    """Segments of rows that are left-padded or packed, and anchors in them, some rows with fewer: they repeat one."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 10))
    anchors = draw(st.integers(0, length))
    segment_ids, index = torch.zeros(2, rows, length, dtype=torch.long), torch.zeros(rows, anchors).long()
    for row in range(rows):
        padding, border = sorted(draw(st.integers(0, length)) for _ in range(2))
        segment_ids[0, row, padding:] = 1
        segment_ids[1, row, border:] = 1
        if anchors:
            own = sorted(draw(st.sets(st.integers(0, length - 1), min_size=1, max_size=anchors)))
            index[row] = torch.tensor(own + [own[0]] * (anchors - len(own)))
    return segment_ids.sum(0), index


def states_and_gradients(head, inputs, index, weights, *, everywhere):
    """z^1 ... z^k at the anchors [k, B, A, H], then the gradients of their weighted sum: of the hidden states, the
    embeddings and the parameters. `everywhere` runs the chain at all positions and picks the anchors afterwards."""
    hidden, embeddings, positions, segment_ids, depths = inputs
    grid = AnchorGrid(segment_ids, index)
    leaves = [t.clone().requires_grad_() for t in (hidden, *embeddings)]
    if everywhere:
        states = [grid.at(z) for z in head(leaves[0], leaves[1:], positions, segment_ids, depths)]
    else:
        picked = [leaves[1], *map(grid.at, leaves[2:])]
        states = head(leaves[0], picked, positions, segment_ids, depths, anchor_index=index)
    states = torch.stack(states)
    return states, torch.autograd.grad(
        (states * weights).sum(), [*leaves, *head.parameters()], allow_unused=True
    )


# float64 is the proof; in float32 large terms cancel in some gradients, which left 1.2e-5 in one of 40 examples
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@settings(max_examples=40, deadline=None)
@given(
    batch=batches(),
    family=st.sampled_from(list(FAMILIES)),
    num_blocks=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_the_chain_at_some_anchors_equals_those_anchors_of_the_chain_at_all(
    dtype, tolerance, batch, family, num_blocks, seed
):
    segment_ids, index = batch
    head = random_head(family, num_blocks=num_blocks)
    head = with_float64_norms(head) if dtype == torch.float64 else head
    hidden, embeddings, positions, _, _ = random_inputs(*segment_ids.shape, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    depths = 1 + seed % DEPTHS
    weights = torch.randn(depths, *index.shape, WIDTH, generator=generator, dtype=dtype)
    inputs = hidden, embeddings, positions, segment_ids, depths
    states, gradients = states_and_gradients(head, inputs, index, weights, everywhere=False)
    all_states, all_gradients = states_and_gradients(head, inputs, index, weights, everywhere=True)
    assert states.shape == (depths, *index.shape, WIDTH)
    torch.testing.assert_close(states, all_states, rtol=tolerance, atol=tolerance)
    for got, expected in zip(gradients, all_gradients, strict=True):
        # blocks and embeddings of deeper depths than were asked for get none
        assert (got is None) == (expected is None)
        if got is not None:
            assert (got - expected).norm() <= tolerance * max(1.0, expected.norm())


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_no_anchors_at_all_give_empty_states_and_zero_gradients(num_blocks):
    head = random_head("qwen3", num_blocks=num_blocks)
    hidden, embeddings, positions, segment_ids, _ = random_inputs()
    nowhere = torch.zeros(2, 0, dtype=torch.long)
    embeddings = [embeddings[0], *(e[:, :0] for e in embeddings[1:])]
    states = head(hidden, embeddings, positions, segment_ids, DEPTHS, nowhere)
    assert [z.shape for z in states] == [(2, 0, WIDTH)] * DEPTHS
    sum(z.sum() for z in states).backward()
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_only_what_depth_ones_keys_need_is_computed_at_every_position():
    head = random_head("qwen3", num_blocks=2)
    hidden, embeddings, positions, segment_ids, _ = random_inputs(batch=1)
    rows: dict[str, list[int]] = {}
    for name, module in head.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: rows.setdefault(name, []).append(output.shape[1])
            )
    embeddings = [embeddings[0], *(e[:, :2] for e in embeddings[1:])]
    head(hidden, embeddings, positions, segment_ids, DEPTHS, torch.tensor([[3, 7]]))
    for_keys = {"hidden_norm", "token_norm", "proj", "input_layernorm", "k_proj", "k_norm", "v_proj"}
    for name, seen in rows.items():
        if name.rsplit(".")[-1] in for_keys:
            # the second block is active at depth 2 only, and nobody reads its keys of depth 3
            assert seen == ([9, 2, 2] if name.startswith("blocks.0") else [9, 2]), name
        else:
            assert set(seen) == {2}, name
