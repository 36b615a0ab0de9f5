"""What surrounds FlashAttention's operators, with the operators written down in plain torch as torch calls them."""

from __future__ import annotations

from unittest import mock

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.heads import flash
from openrlhf_mtp.heads.attention import chain_attention
from openrlhf_mtp.heads.grid import AnchorGrid
from tests.unit.heads.attention_reference import chain_attention_reference
from tests.unit.heads.test_attention import chain, output_and_gradients


def scores_of(query, key, scale):
    """Scores of a run, causal and aligned to its last query and last key: [q, N, D], [k, K, D] -> [N, q, k]."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = torch.einsum("qnd,knd->nqk", query, key) * scale
    later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(len(key) - len(query) + 1)
    return scores.masked_fill(later, float("-inf"))


def runs_of(queries, keys):
    for n in range(len(queries) - 1):
        yield slice(queries[n], queries[n + 1]), slice(keys[n], keys[n + 1])


def forward(query, key, value, queries, keys, most_q, most_k, dropout, causal, debug, *, scale):
    assert (most_q, most_k, causal) == (int(queries.diff().max()), int(keys.diff().max()), True)
    output, lse = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
    for q, k in runs_of(queries, keys):
        scores = scores_of(query[q], key[k], scale)
        spread = value[k].repeat_interleave(query.shape[1] // value.shape[1], dim=1)
        output[q] = torch.einsum("nqk,knd->qnd", scores.softmax(-1), spread)
        lse[:, q] = scores.logsumexp(-1)
    return output, lse, None, None, None


def backward(grad, query, key, value, output, lse, queries, keys, *rest, scale):
    """From the given output and log-sum-exp, whatever keys they are over."""
    found = [torch.zeros_like(each) for each in (query, key, value)]
    groups = query.shape[1] // key.shape[1]
    for q, k in runs_of(queries, keys):
        p = (scores_of(query[q], key[k], scale) - lse[:, q, None]).exp()
        wide_key, wide_value = (t[k].repeat_interleave(groups, dim=1) for t in (key, value))
        mean = (grad[q] * output[q]).sum(-1).T[..., None]
        d_score = p * (torch.einsum("qnd,knd->nqk", grad[q], wide_value) - mean) * scale
        found[0][q] = torch.einsum("nqk,knd->qnd", d_score, wide_key)
        found[1][k] = torch.einsum("nqk,qnd->knd", d_score, query[q]).unflatten(1, (-1, groups)).sum(2)
        found[2][k] = torch.einsum("nqk,qnd->knd", p, grad[q]).unflatten(1, (-1, groups)).sum(2)
    return found


CASES = given(
    seed=st.integers(0, 1000),
    depths=st.integers(1, 3),
    kv_heads=st.integers(1, 2),
    groups=st.integers(1, 3),
    length=st.integers(1, 10),
    anchors=st.none() | st.integers(1, 6),
)


@settings(max_examples=40, deadline=None)
@CASES
def test_it_equals_the_reference_with_its_gradients(seed, depths, kv_heads, groups, length, anchors):
    sizes = {"kv_heads": kv_heads, "groups": groups, "length": length, "anchors": anchors}
    inputs = chain(seed, depths, **sizes)
    expected = output_and_gradients(chain_attention_reference, *inputs)
    with (
        mock.patch.object(flash, "takes", return_value=True),
        mock.patch.object(flash, "EXTRA_KEYS", 100),
        mock.patch.object(torch.ops.aten, "_flash_attention_forward", forward),
        mock.patch.object(torch.ops.aten, "_flash_attention_backward", backward),
    ):
        used = output_and_gradients(chain_attention, *inputs)
    for got, wanted in zip(used, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_a_packed_row_is_one_run_a_sample_and_a_part_sees_the_keys_before_it():
    grid = AnchorGrid(torch.tensor([[1, 1, 1, 2, 2, 2, 2]]), torch.tensor([[1, 2, 4, 5, 6]]))
    runs = grid.runs
    assert runs is not None
    assert runs.queries.tolist() == [0, 2, 5]
    assert runs.key_index.tolist() == list(range(7))
    part = grid.part(slice(0, 1), slice(3, 5)).runs
    assert part is not None
    assert part.queries.tolist() == [0, 2]
    assert part.key_index.tolist() == [3, 4, 5, 6]


def test_scattered_anchors_keep_the_present_form():
    every = torch.ones(1, 64, dtype=torch.long)
    assert AnchorGrid(every).runs is not None
    assert AnchorGrid(every, torch.arange(0, 64, 2)[None]).runs is None
    assert AnchorGrid(every, torch.zeros(1, 0, dtype=torch.long)).runs is None


def test_a_cpu_and_full_precision_keep_the_present_form():
    assert not flash.takes(torch.zeros(1, 8, dtype=torch.bfloat16))


def test_torch_has_the_operators_with_these_arguments():
    forward_names = [a.name for a in torch.ops.aten._flash_attention_forward.default._schema.arguments]
    assert forward_names[:10] == [
        *("query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k"),
        *("dropout_p", "is_causal", "return_debug_mask"),
    ]
    backward_names = [a.name for a in torch.ops.aten._flash_attention_backward.default._schema.arguments]
    assert backward_names[:14] == [
        *(
            "grad_out",
            "query",
            "key",
            "value",
            "out",
            "logsumexp",
            "cum_seq_q",
            "cum_seq_k",
            "max_q",
            "max_k",
        ),
        *("dropout_p", "is_causal", "rng_state", "unused"),
    ]
