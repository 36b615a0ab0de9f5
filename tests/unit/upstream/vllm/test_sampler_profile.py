"""vLLM's dummy step samples all drafts where memory is profiled, and says what to lower on a GPU that is too small."""

from types import ModuleType, SimpleNamespace

import pytest
import torch

from openrlhf_mtp.upstream.vllm import sampler_profile
from openrlhf_mtp.upstream.vllm.sampler_profile import PATCH


class Runner:
    """vLLM's, as far as its dummy step goes."""

    num_spec_tokens = 3
    model_config = SimpleNamespace(get_vocab_size=lambda: 1000)

    def __init__(self, device: str, drafts: bool) -> None:
        self.device = torch.device(device)
        self.speculative_config = object() if drafts else None

    def _dummy_sampler_run(self, hidden_states: torch.Tensor) -> str:
        return "vLLM's"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(
        sampler_profile, "verify_all_drafts", lambda runner, sequences, vocab: made.append((sequences, vocab))
    )
    return made


def patched() -> type[Runner]:
    runners = ModuleType(PATCH.target)
    runners.GPUModelRunner = type("GPUModelRunner", (Runner,), dict(vars(Runner)))
    assert not PATCH.probe(runners)
    PATCH.apply(runners)
    assert PATCH.probe(runners)
    return runners.GPUModelRunner


@pytest.mark.parametrize(
    ("device", "drafts", "made"), [("cuda", True, [(5, 1000)]), ("cuda", False, []), ("cpu", True, [])]
)
def test_all_drafts_are_sampled_where_memory_is_profiled(device, drafts, made, steps):
    assert patched()(device, drafts)._dummy_sampler_run(torch.zeros(5, 8)) == "vLLM's"
    assert steps == made


def test_a_gpu_that_is_too_small_is_told_in_settings(monkeypatch):
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(sampler_profile, "verify_all_drafts", fails)
    with pytest.raises(
        RuntimeError, match=r"5 sequences with 3 drafts each; lower mtp\.rollout\.max_num_seqs"
    ):
        patched()("cuda", True)._dummy_sampler_run(torch.zeros(5, 8))
