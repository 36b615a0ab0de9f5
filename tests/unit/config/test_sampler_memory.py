"""Of the sizes in the review of GPU runs; vLLM's own sampler is counted in tests/contract/test_sampler_memory.py."""

import pytest

from openrlhf_mtp.config.sampler_memory import sampler_bytes


def test_three_sampled_drafts_with_log_probs_take_24_float32_rows_a_sequence() -> None:
    assert sampler_bytes(512, 3, 152_000) == 512 * 152_000 * 4 * 24


@pytest.mark.parametrize("depths", [0, 1, 3])
def test_log_probs_cost_memory_and_sequences_multiply_it(depths: int) -> None:
    assert sampler_bytes(8, depths, 1000, logprobs=False) < sampler_bytes(8, depths, 1000)
    assert sampler_bytes(16, depths, 1000) == 2 * sampler_bytes(8, depths, 1000)
