"""The estimate of a sampler's memory is what vLLM's own sampler holds, counted tensor by tensor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("vllm")

from openrlhf_mtp.config.sampler_memory import sampler_bytes
from openrlhf_mtp.rollout.environment import prepare_environment
from openrlhf_mtp.upstream.vllm import sampler_profile
from tests.live_bytes import LiveBytes
from tests.processes import in_fresh_process

SEQUENCES, VOCAB = 8, 4000
DEPTHS = (1, 2, 3)


def peaks() -> dict[int, int]:
    """Depths -> bytes at the peak of a step in which every request has drafts and asks for log-probs."""
    prepare_environment(cpu=True)
    from openrlhf_mtp.rollout import plugin

    plugin.register()
    from vllm.v1.sample.rejection_sampler import RejectionSampler
    from vllm.v1.sample.sampler import Sampler
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    CPUModelRunner._postprocess_triton(None)  # puts the CPU's kernels into the sampler
    found = {}
    for depths in DEPTHS:
        runner = SimpleNamespace(
            num_spec_tokens=depths,
            device=torch.device("cpu"),
            vllm_config=SimpleNamespace(model_config=SimpleNamespace(dtype=torch.bfloat16)),
            rejection_sampler=RejectionSampler(Sampler(logprobs_mode="processed_logprobs")),
        )
        with torch.inference_mode(), LiveBytes() as counted:
            output = sampler_profile.verify_all_drafts(runner, SEQUENCES, VOCAB)
        assert output.sampled_token_ids.shape == (SEQUENCES, depths + 1)
        found[depths] = counted.peak
    return found


@pytest.fixture(scope="module")
def measured() -> dict[int, int]:
    return in_fresh_process(peaks)


@pytest.mark.parametrize("depths", DEPTHS)
def test_the_estimate_is_what_the_sampler_holds(depths: int, measured: dict[int, int]) -> None:
    assert sampler_bytes(SEQUENCES, depths, VOCAB) == pytest.approx(measured[depths], rel=0.15)
