"""V2's dummy step samples all drafts where memory is profiled; `engine/test_v2_runner.py` samples them really."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from openrlhf_mtp.upstream.vllm.v2 import sampler_profile
from openrlhf_mtp.upstream.vllm.v2.sampler_profile import PATCH


class Runner:
    """vLLM's, as far as its dummy step goes."""

    num_speculative_steps = 3

    def __init__(self, device: str, drafts: bool) -> None:
        self.device = torch.device(device)
        self.rejection_sampler = object() if drafts else None

    def _dummy_sampler_run(self, hidden_states: torch.Tensor) -> str:
        return "vLLM's"


def patched() -> Any:
    runners = ModuleType(PATCH.target)
    vars(runners)["GPUModelRunner"] = type("GPUModelRunner", (Runner,), dict(vars(Runner)))
    assert not PATCH.probe(runners)
    PATCH.apply(runners)
    assert PATCH.probe(runners)
    return runners.GPUModelRunner


@pytest.mark.parametrize(
    ("device", "drafts", "made"), [("cuda", True, [5]), ("cuda", False, []), ("cpu", True, [])]
)
def test_all_drafts_are_sampled_where_memory_is_profiled(
    device: str, drafts: bool, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(
        sampler_profile, "verify_all_drafts", lambda runner, hidden: steps.append(len(hidden))
    )
    assert patched()(device, drafts)._dummy_sampler_run(torch.zeros(5, 8)) == "vLLM's"
    assert steps == made


def test_a_gpu_that_is_too_small_is_told_in_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(sampler_profile, "verify_all_drafts", fails)
    with pytest.raises(
        RuntimeError, match=r"5 sequences with 3 drafts each; lower mtp\.rollout\.max_num_seqs"
    ):
        patched()("cuda", True)._dummy_sampler_run(torch.zeros(5, 8))
