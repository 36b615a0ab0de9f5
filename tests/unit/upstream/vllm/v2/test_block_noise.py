"""A request's random numbers differ from block to block where blocks are verified as a whole, and only there."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.upstream.vllm.v2 import block_noise
from openrlhf_mtp.upstream.vllm.v2.block_noise import with_block_seeds

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(seed=INT64, positions=st.lists(st.integers(0, 2**40), min_size=2, max_size=8, unique=True))
def test_the_blocks_of_a_request_have_seeds_of_their_own(seed: int, positions: list[int]) -> None:
    seeds, requests = torch.tensor([seed]), torch.tensor([0], dtype=torch.int32)
    of_blocks = [int(with_block_seeds(seeds, requests, torch.tensor([p]))[0]) for p in positions]
    assert len({*of_blocks, seed}) == len(positions) + 1
    again = with_block_seeds(seeds, requests, torch.tensor([positions[0]]))
    assert int(again[0]) == of_blocks[0], "a seeded request gives its text again"


def test_requests_outside_the_batch_and_the_runners_own_seeds_stay() -> None:
    seeds = torch.arange(5)
    mixed = with_block_seeds(seeds, torch.tensor([3, 1], dtype=torch.int32), torch.tensor([10, 20]))
    assert mixed[[0, 2, 4]].tolist() == [0, 2, 4]
    assert mixed[3] != 3
    assert mixed[1] != 1
    assert seeds.tolist() == [0, 1, 2, 3, 4]
    assert mixed[3] == with_block_seeds(seeds, torch.tensor([3]), torch.tensor([10]))[3]


class Speculator:
    """vLLM's, as far as the start of a proposal goes: request 2 then 0, whose last tokens stand at 6 and 9."""

    def __init__(self, way: str) -> None:
        self.speculative_config = SimpleNamespace(rejection_sample_method=way)
        self.input_buffers = SimpleNamespace(positions=torch.tensor([4, 5, 8, 9]))
        self.last_token_indices = torch.tensor([1, 2, 0])
        self.idx_mapping = torch.tensor([2, 0, -1], dtype=torch.int32)
        self.seeds = torch.tensor([100, 101, 102])

    def on_prefill_begin(self, num_reqs: int) -> None: ...


def speculator(way: str) -> Any:
    speculators = ModuleType("speculators")
    vars(speculators)["AutoRegressiveSpeculator"] = type("Patched", (Speculator,), dict(vars(Speculator)))
    patch = block_noise.PATCHES[0]
    patch.apply(speculators)
    assert patch.probe(speculators)
    return speculators.AutoRegressiveSpeculator(way)


def test_drafts_get_the_seeds_of_their_block_in_the_buffer_that_graphs_read() -> None:
    one = speculator("block")
    buffer, before = one.seeds, one.seeds.clone()
    one.on_prefill_begin(2)
    assert one.seeds is buffer
    expected = with_block_seeds(before, torch.tensor([2, 0]), torch.tensor([6, 9]))
    assert one.seeds.tolist() == expected.tolist()


def test_standard_verification_keeps_vllms_numbers() -> None:
    one = speculator("standard")
    one.on_prefill_begin(2)
    assert one.seeds.tolist() == [100, 101, 102]


def rejection_sample(
    target_logits: Any,
    cu_num_logits: Any,
    pos: Any,
    idx_mapping: Any,
    seed: Any,
    use_block_verification: bool = False,
) -> Any:
    """vLLM's, as far as random numbers go."""
    return seed


@pytest.mark.parametrize("block", [True, False])
def test_verification_uses_the_seeds_that_drafts_were_drawn_with(block: bool) -> None:
    verifiers = ModuleType("verifiers")
    vars(verifiers)["rejection_sample"] = rejection_sample
    patch = block_noise.PATCHES[1]
    patch.apply(verifiers)
    assert patch.probe(verifiers)
    seeds = torch.tensor([100, 101, 102])
    used = verifiers.rejection_sample(
        None,
        torch.tensor([0, 4, 6], dtype=torch.int32),  # three drafts, then one
        torch.tensor([6, 7, 8, 9, 9, 10]),
        torch.tensor([2, 0], dtype=torch.int32),
        seeds,
        use_block_verification=block,
    )
    expected = with_block_seeds(seeds, torch.tensor([2, 0]), torch.tensor([6, 9])) if block else seeds
    assert used.tolist() == expected.tolist()
    assert seeds.tolist() == [100, 101, 102]
