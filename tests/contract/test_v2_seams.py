"""What we rely on inside vLLM's V2 model runner is there, and who gets that runner. Nothing of it runs here."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

from openrlhf_mtp.bench.drafting import Drafting
from openrlhf_mtp.rollout import environment, plugin
from openrlhf_mtp.rollout.worker import MTPWorkerExtension


def worker(v2_runner: bool, verification: str | None = None, drafts: str = "probabilistic") -> Any:
    """A worker as far as the probe looks at it."""
    speculative = verification and SimpleNamespace(
        rejection_sample_method=verification, draft_sample_method=drafts
    )
    return SimpleNamespace(use_v2_model_runner=v2_runner, speculative_config=speculative)


@pytest.fixture
def nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Patches and registrations are all live; for which runner that was asked."""
    asked: list[bool] = []

    def missing(*, v2_runner: bool) -> list[str]:
        asked.append(v2_runner)
        return []

    monkeypatch.setattr(plugin, "missing", missing)
    return asked


@pytest.mark.parametrize("v2_runner", [True, False])
def test_a_worker_asks_for_the_patches_of_its_own_model_runner(
    v2_runner: bool, nothing_is_missing: list[bool]
) -> None:
    MTPWorkerExtension.mtp_probe(worker(v2_runner, "standard"))
    MTPWorkerExtension.mtp_probe(worker(v2_runner))
    assert nothing_is_missing == [v2_runner, v2_runner]
    from vllm.v1.worker.gpu_worker import Worker

    assert "self.use_v2_model_runner = vllm_config.use_v2_model_runner" in inspect.getsource(Worker.__init__)


def test_blocks_of_sampled_drafts_are_refused_on_the_v1_runner(nothing_is_missing: list[bool]) -> None:
    MTPWorkerExtension.mtp_probe(worker(True, "block"))
    MTPWorkerExtension.mtp_probe(worker(False, "block", "greedy"))
    with pytest.raises(plugin.ModelRunnerError, match=r"got block, expected standard.*unset VLLM_USE_V2"):
        MTPWorkerExtension.mtp_probe(worker(False, "block"))


@pytest.mark.parametrize(("cpu", "runner"), [(True, "0"), (False, None)])
def test_vllm_chooses_the_model_runner_where_there_is_a_choice(
    cpu: bool, runner: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment.os, "environ", {})
    environment.prepare_environment(cpu=cpu)
    assert environment.os.environ.get(environment.V2_RUNNER) == runner
    environment.os.environ[environment.V2_RUNNER] = "1"
    environment.prepare_environment(cpu=cpu)
    assert environment.os.environ[environment.V2_RUNNER] == "1", "the user's"


def test_vllm_takes_v2_for_eagle_drafts_wherever_triton_is() -> None:
    from vllm.config import VllmConfig

    choice = inspect.getsource(VllmConfig.use_v2_model_runner.fget)
    assert "if use_v2_model_runner is not None:\n            return use_v2_model_runner" in choice
    assert "if not HAS_TRITON:" in choice
    lacks = inspect.getsource(VllmConfig._get_v2_model_runner_unsupported_features)
    taken = lacks.partition("elif speculative_config.method not in (")[2].partition(")")[0]
    assert '"eagle",' in taken
    for arm in (Drafting("ngram", "ngram"), Drafting("suffix", "suffix"), Drafting("head", "head")):
        method = "eagle" if arm.method == "head" else arm.method
        assert arm.needs_v1_runner == (f'"{method}"' not in taken)


def test_the_speculator_still_has_the_step_and_the_seeds_where_we_look() -> None:
    from vllm.v1.worker.gpu.spec_decode.autoregressive.speculator import AutoRegressiveSpeculator
    from vllm.v1.worker.gpu.spec_decode.eagle.speculator import EagleSpeculator

    assert EagleSpeculator.load_model is AutoRegressiveSpeculator.load_model
    assert EagleSpeculator.on_prefill_begin is AutoRegressiveSpeculator.on_prefill_begin
    assert "self.current_draft_step = torch.tensor(0" in inspect.getsource(AutoRegressiveSpeculator.__init__)
    steps = inspect.getsource(AutoRegressiveSpeculator._multi_step_decode)
    assert steps.index("self.current_draft_step.fill_(step)") < steps.index("self._generate_draft(")
    propose = inspect.getsource(AutoRegressiveSpeculator.propose)
    places = (
        "self._copy_request_inputs(",
        "prepare_prefill_inputs(",
        "self.on_prefill_begin(",
        "self._prefill(",
    )
    assert sorted(places, key=propose.index) == list(places), "seeds are read before they are the block's"


def test_the_verifier_still_asks_with_the_seeds_and_positions_that_we_read() -> None:
    from vllm.v1.worker.gpu.spec_decode import rejection_sampler, rejection_sampler_utils

    plain = inspect.signature(rejection_sampler_utils.rejection_sample)
    names = {"cu_num_logits", "pos", "idx_mapping", "seed", "use_block_verification"}
    assert names <= set(plain.parameters)
    asked = inspect.getsource(rejection_sampler.RejectionSampler._verify)
    assert "rejection_sample(" in asked
    assert "use_block_verification=self.use_block_verification" in asked


def test_what_needs_no_counterpart_in_v2_still_needs_none() -> None:
    """The reasons that docs/replacements.md gives, where no engine test shows them."""
    from vllm.v1.worker.gpu.sample import gumbel
    from vllm.v1.worker.gpu.sample.states import SamplingStates
    from vllm.v1.worker.gpu.spec_decode.autoregressive import speculator

    sources = [inspect.getsource(module) for module in (gumbel, speculator)]
    assert not any("torch.Generator" in source for source in sources), "random numbers of a request's own"
    assert "self.seeds.np[req_idx] = seed" in inspect.getsource(SamplingStates.add_request)
    assert "_input_fits_in_drafter" not in sources[1]


def test_the_dummy_step_still_samples_without_drafts_and_log_probs() -> None:
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    dummy = inspect.getsource(inspect.unwrap(GPUModelRunner._dummy_sampler_run))
    assert "self.sampler(logits, dummy_input_batch)" in dummy
    assert list(inspect.signature(InputBatch.make_dummy).parameters)[:3] == [
        "num_reqs",
        "num_tokens",
        "input_buffers",
    ]
