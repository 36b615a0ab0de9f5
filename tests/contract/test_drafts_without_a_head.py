"""What whole rollouts rely on inside vLLM: drafts without a head, and an engine that is stepped by hand."""

from __future__ import annotations

import inspect
from dataclasses import fields
from types import SimpleNamespace

import pytest

vllm = pytest.importorskip("vllm")

import numpy as np  # noqa: E402

from openrlhf_mtp.bench import drafting  # noqa: E402
from openrlhf_mtp.rollout import plugin  # noqa: E402


def test_vllms_configuration_still_has_the_fields_that_we_set_or_name() -> None:
    from vllm.config.speculative import SpeculativeConfig

    defaults = {field.name: field.default for field in fields(SpeculativeConfig)}
    assert {"method", "num_speculative_tokens", "prompt_lookup_min", "prompt_lookup_max"} <= defaults.keys()
    assert defaults["suffix_decoding_max_tree_depth"] == drafting.SUFFIX_LIMIT
    assert defaults["rejection_sample_method"] == "standard"
    source = inspect.getsource(SpeculativeConfig)
    assert "prompt_lookup_min = 5" in source, "the default that our docs name"
    assert "arctic_inference" in inspect.getsource(inspect.getmodule(SpeculativeConfig))


def test_n_gram_drafts_are_what_followed_the_last_tokens_before() -> None:
    from vllm.v1.spec_decode.ngram_proposer import NgramProposer

    config = SimpleNamespace(
        speculative_config=SimpleNamespace(
            prompt_lookup_min=2, prompt_lookup_max=4, num_speculative_tokens=3
        ),
        model_config=SimpleNamespace(max_model_len=32),
        scheduler_config=SimpleNamespace(max_num_seqs=2),
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
    )
    known = np.zeros((2, 32), dtype=np.int32)
    known[0, :6] = [1, 2, 3, 4, 1, 2]
    known[1, :4] = [1, 2, 3, 4]
    drafts = NgramProposer(config).propose(3, [[2], [4]], np.array([6, 4], dtype=np.int32), known)
    assert drafts == [[3, 4, 1], []]


def test_drafts_without_a_head_are_proposed_after_bookkeeping_and_verified_without_a_distribution() -> None:
    from vllm.v1.sample.rejection_sampler import RejectionSampler
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    plugin.register()
    propose = inspect.unwrap(GPUModelRunner.propose_draft_token_ids)
    source = inspect.getsource(propose)
    assert 'spec_config.method == "ngram"' in source
    assert 'spec_config.method == "suffix"' in source
    assert "self._draft_probs = None" in source
    assert "draft_probs" in inspect.signature(RejectionSampler.forward).parameters
    # the wrapper that notes where prompts are cut writes to any proposer: they must take an attribute
    from vllm.v1.spec_decode.ngram_proposer import NgramProposer
    from vllm.v1.spec_decode.suffix_decoding import SuffixDecodingProposer

    for proposer in (NgramProposer, SuffixDecodingProposer):
        assert not hasattr(proposer, "__slots__")


def test_suffix_drafts_come_from_a_tree_that_can_be_replaced() -> None:
    from vllm.v1.spec_decode.suffix_decoding import SuffixDecodingProposer

    source = inspect.getsource(SuffixDecodingProposer)
    assert "self.suffix_cache = SuffixDecodingCache(" in source
    for used in ("start_request", "add_active_response", "stop_request"):
        assert f"self.suffix_cache.{used}(" in source


def test_an_engine_is_stepped_by_hand_and_gives_new_tokens_alone() -> None:
    from vllm import LLM
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.llm_engine import LLMEngine

    assert list(inspect.signature(LLMEngine.add_request).parameters)[:4] == [
        "self",
        "request_id",
        "prompt",
        "params",
    ]
    assert not inspect.signature(LLMEngine.step).parameters.keys() - {"self"}
    assert callable(LLMEngine.has_unfinished_requests)
    assert RequestOutputKind.DELTA
    assert callable(LLM.reset_prefix_cache)
    assert "Callable" in str(inspect.signature(LLM.collective_rpc).parameters["method"].annotation)
