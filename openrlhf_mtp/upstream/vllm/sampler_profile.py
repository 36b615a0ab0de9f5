"""Profile what the sampler holds in a real decode step, before vLLM gives the rest of the GPU to the cache.

vLLM's own dummy step verifies one draft for each request and asks for no log-probs. A real one holds the distributions
of k drafts twice, logits of k + 1 tokens, and their log-probs (`config.sampler_memory` counts them): with 152,000
tokens and 256 requests gigabytes more, which then are missing in the middle of a rollout.

On a CPU the cache has a size of its own and nothing is profiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch


def verify_all_drafts(runner: Any, sequences: int, vocab: int) -> Any:
    """Sample as for `sequences` requests with k drafts each, with log-probs; the output is of no use.

    Args:
        runner: vLLM's V1 model runner.
        sequences: B, requests in a step.
        vocab: V, columns of the logits.
    """
    import torch
    from vllm.v1.sample.logits_processor import LogitsProcessors
    from vllm.v1.sample.metadata import SamplingMetadata
    from vllm.v1.spec_decode.metadata import SpecDecodeMetadata

    depths, device = runner.num_spec_tokens, runner.device
    ones = torch.ones(sequences, device=device)
    kept = torch.rand(sequences, depths, vocab, device=device).softmax(
        -1
    )  # by the runner, from the proposal on
    drawn_from = torch.cat(list(kept)).contiguous()  # as `_get_spec_decode_draft_probs` hands them over
    logits = torch.randn(
        sequences * (depths + 1), vocab, device=device, dtype=runner.vllm_config.model_config.dtype
    )
    sampling = SamplingMetadata(
        temperature=ones,
        all_greedy=False,
        all_random=True,
        top_p=None,
        top_k=None,
        generators={},
        max_num_logprobs=1,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=0 * ones,
        presence_penalties=0 * ones,
        repetition_penalties=ones,
        output_token_ids=[[] for _ in range(sequences)],
        spec_token_ids=[[] for _ in range(sequences)],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
    )
    drafts = SpecDecodeMetadata.make_dummy([[0] * depths] * sequences, device)
    return runner.rejection_sampler(drafts, drawn_from, logits, sampling)


def profile(verify: Callable[[], Any], device: Any, sequences: int, depths: int) -> None:
    """Run `verify`, which samples for `sequences` requests with `depths` drafts each, where memory is profiled.

    Raises:
        RuntimeError: the GPU is too small for it; the message names settings.
    """
    import torch

    if device.type == "cpu":
        return
    try:
        with torch.inference_mode():
            verify()
    except torch.OutOfMemoryError as full:
        raise RuntimeError(
            f"out of memory while sampling for {sequences} sequences with {depths} drafts each; lower "
            "mtp.rollout.max_num_seqs or vllm.gpu_memory_utilization"
        ) from full


def is_live(runners: ModuleType) -> bool:
    """Whether a module's runner samples all drafts in its dummy step."""
    return runners.GPUModelRunner._dummy_sampler_run.__code__.co_name == "dummy_and_all_drafts"


def _profile_real_steps(runners: ModuleType) -> None:
    runner = runners.GPUModelRunner
    dummy = runner._dummy_sampler_run

    @functools.wraps(dummy)
    def dummy_and_all_drafts(self: Any, hidden_states: Any) -> Any:
        output, sequences = dummy(self, hidden_states), len(hidden_states)
        if self.speculative_config is not None:
            profile(
                lambda: verify_all_drafts(self, sequences, self.model_config.get_vocab_size()),
                self.device,
                sequences,
                self.num_spec_tokens,
            )
        return output

    runner._dummy_sampler_run = dummy_and_all_drafts


PATCH = Patch(
    name="profile of sampled drafts",
    target="vllm.v1.worker.gpu_model_runner",
    touches=("GPUModelRunner._dummy_sampler_run",),
    reason="vLLM profiles one draft a request and no log-probs, and gives the cache memory that decode steps need: out "
    "of memory in mid-rollout, by 4 GB at 512 sequences, 3 depths and 152,000 tokens",
    versions="vllm 0.29.0",
    apply=_profile_real_steps,
    probe=is_live,
)
