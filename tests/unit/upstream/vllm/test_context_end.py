"""One sequence near the end of its context leaves its neighbors their drafts."""

from types import ModuleType, SimpleNamespace

import pytest

from openrlhf_mtp.upstream.vllm.context_end import PATCH


class Runner:
    """vLLM's, asked about a batch with one sequence near its end."""

    def __init__(self, method: str) -> None:
        self.speculative_config = SimpleNamespace(method=method)

    def _input_fits_in_drafter(self, common_attn_metadata: object) -> bool:
        return False


@pytest.mark.parametrize(
    ("method", "batch", "drafts"),
    [("eagle", object(), True), ("eagle", None, False), ("mtp", object(), False)],
)
def test_a_batch_drafts_with_our_class_although_one_of_its_sequences_is_at_its_end(method, batch, drafts):
    runners = ModuleType(PATCH.target)
    runners.GPUModelRunner = type("GPUModelRunner", (Runner,), dict(vars(Runner)))
    PATCH.apply(runners)
    assert PATCH.probe(runners)
    assert runners.GPUModelRunner(method)._input_fits_in_drafter(batch) is drafts
