"""Profile what V2's sampler holds in a real decode step, before vLLM gives the rest of the GPU to the cache.

As with V1 (`upstream.vllm.sampler_profile`), vLLM's own dummy step samples one token a request, without drafts,
temperature and log-probs. V2 holds the drafts' logits from its start on, so that they are counted, and verifies in
pieces of 1 GiB; the logits of k + 1 tokens a request, their float32 copy and the kernels' results are missing.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch
from openrlhf_mtp.upstream.vllm.sampler_profile import is_live, profile

_TEMPERATURE = 0.5
"""Another than 0 and 1, at which V2 makes no copy of the logits."""


def verify_all_drafts(runner: Any, hidden_states: Any) -> Any:
    """Sample as for requests with k drafts each, with log-probs; the output is of no use.

    Args:
        runner: vLLM's V2 model runner.
        hidden_states: [B, H], a request each.
    """
    import torch
    from vllm.v1.worker.gpu.input_batch import InputBatch

    sequences, tokens = len(hidden_states), runner.num_speculative_steps + 1
    logits = runner.model.compute_logits(hidden_states.repeat_interleave(tokens, dim=0))
    plain = InputBatch.make_dummy(sequences, sequences, runner.input_buffers)
    each = torch.arange(tokens, dtype=torch.int32, device=runner.device)
    batch = replace(
        plain,
        num_draft_tokens=sequences * (tokens - 1),
        expanded_idx_mapping=plain.expanded_idx_mapping.repeat_interleave(tokens),
        expanded_local_pos=each.repeat(sequences),
        logits_indices=plain.logits_indices.repeat_interleave(tokens),
        cu_num_logits=plain.cu_num_logits * tokens,
        cu_num_logits_np=plain.cu_num_logits_np * tokens,
    )
    sampler = runner.sampler
    rows, states = batch.idx_mapping_np, sampler.sampling_states
    parts = (states.temperature.np, states.num_logprobs, sampler.needs_logits_processing)
    before = [part[rows].copy() for part in parts]
    for part, value in zip(parts, (_TEMPERATURE, 1, True), strict=True):
        part[rows] = value
    states.apply_staged_writes()
    try:
        return runner.rejection_sampler(logits, batch, runner.speculator.draft_logits)
    finally:
        for part, value in zip(parts, before, strict=True):
            part[rows] = value
        states.apply_staged_writes()


def _profile_real_steps(runners: ModuleType) -> None:
    runner = runners.GPUModelRunner
    dummy = runner._dummy_sampler_run

    @functools.wraps(dummy)
    def dummy_and_all_drafts(self: Any, hidden_states: Any) -> Any:
        output, sequences = dummy(self, hidden_states), len(hidden_states)
        if self.rejection_sampler is not None:
            profile(
                lambda: verify_all_drafts(self, hidden_states),
                self.device,
                sequences,
                self.num_speculative_steps,
            )
        return output

    runner._dummy_sampler_run = dummy_and_all_drafts


PATCH = Patch(
    name="profile of sampled drafts, V2",
    target="vllm.v1.worker.gpu.model_runner",
    touches=("GPUModelRunner._dummy_sampler_run",),
    reason="vLLM profiles one token a request, without drafts and log-probs, and gives the cache memory that decode "
    "steps need",
    versions="vllm 0.29.0",
    apply=_profile_real_steps,
    probe=is_live,
)
