"""What an engine on a GPU gets where the job says nothing, and that what a job says stays."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.rollout.gpu_limits import capture_sizes, gpu_limits

DRAFTS = {"speculative_config": {"num_speculative_tokens": 3}}


def test_an_engine_has_256_sequences_and_a_graph_for_each_number_of_them() -> None:
    limits = gpu_limits({**DRAFTS, "enforce_eager": False}, graphs_up_to=512)
    assert (limits["max_num_seqs"], limits["max_num_batched_tokens"]) == (256, 8192)
    sizes = limits["cudagraph_capture_sizes"]
    assert sizes[-1] == 256 * 4
    assert {4 * count for count in (1, 2, 4, 8, 136, 248, 256)} <= set(sizes)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"speculative_config": None},
        {**DRAFTS, "max_num_seqs": 128},
        {**DRAFTS, "enforce_eager": True},
        {**DRAFTS, "max_cudagraph_capture_size": 64},
        {**DRAFTS, "compilation_config": {"cudagraph_mode": "NONE"}},
    ],
    ids=str,
)
def test_graphs_are_vllms_where_they_suffice_or_the_job_chooses(arguments: dict[str, Any]) -> None:
    assert "cudagraph_capture_sizes" not in gpu_limits(arguments, graphs_up_to=512)


@given(
    sequences=st.integers(1, 2048),
    tokens=st.integers(1, 1 << 16),
    depths=st.integers(0, 8),
    graphs_up_to=st.sampled_from([512, 1024]),
)
def test_what_a_job_sets_stays_and_sizes_fit_a_step(sequences, tokens, depths, graphs_up_to) -> None:
    given_ = {"max_num_seqs": sequences, "max_num_batched_tokens": tokens}
    drafts = {"speculative_config": {"num_speculative_tokens": depths}} if depths else {}
    limits = gpu_limits({**given_, **drafts}, graphs_up_to=graphs_up_to)
    assert {name: limits[name] for name in given_} == given_
    sizes = limits.get("cudagraph_capture_sizes")
    if sizes is None:
        assert min(sequences * (depths + 1), tokens) <= graphs_up_to
    else:
        assert sizes == sorted(set(sizes))
        assert sizes[-1] <= tokens
        if sequences * (depths + 1) <= tokens:
            assert sizes[-1] == sequences * (depths + 1)


def test_a_batch_that_is_larger_than_the_default_raises_the_tokens() -> None:
    limits = gpu_limits({**DRAFTS, "max_num_seqs": 4096}, graphs_up_to=512)
    assert limits["max_num_batched_tokens"] == 4096 * 4


def test_sizes_below_vllms_own_limit_are_its_own() -> None:
    own = [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)]
    sizes = capture_sizes(256, 4, 8192, 512)
    assert set(own) <= set(sizes)
