"""Draw the drafts of a seeded request from its own generator.

vLLM draws every draft from the process's generator ("TODO: Consider seeds" in its proposer), so a request with a seed
gives another text each time as soon as drafts are sampled. Here such a request's drafts are drawn again from its own
generator. At the end of a prompt's chunk the proposal is thrown away, and nothing is drawn: the text does not depend on
how the prompt was cut.

Drafts that were drawn and never verified are gone from the generator: a request that vLLM preempts, or whose drafts a
changing number of depths cuts, goes on with another text than without. It is as good a sample.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch

_PROPOSER = "vllm.v1.spec_decode.llm_base_proposer"


def _draw_from_own_generators(proposers: ModuleType) -> None:
    proposer = proposers.SpecDecodeBaseProposer
    sample = proposer._sample_from_logits

    @functools.wraps(sample)
    def sample_with_seeds(self: Any, logits: Any, sampling_metadata: Any) -> Any:
        tokens, probabilities = sample(self, logits, sampling_metadata)
        if probabilities is None or len(tokens) != len(sampling_metadata.temperature):
            return tokens, probabilities  # greedy drafts, or all depths of a request at once
        in_vain = getattr(self, "tokens_after_chunks", {})  # by `chunk_ends`
        for row, generator in sampling_metadata.generators.items():
            if row in in_vain or row >= len(tokens):
                continue
            own = probabilities[row : row + 1]
            noise = proposers.empty_exponential_noise_like(own, self.use_fp64_gumbel)
            noise.exponential_(generator=generator)
            tokens[row : row + 1] = proposers.sample_with_exponential_noise(own.clone(), noise)
        return tokens, probabilities

    proposer._sample_from_logits = sample_with_seeds


PATCH = Patch(
    name="seeds of drafts",
    target=_PROPOSER,
    touches=("SpecDecodeBaseProposer._sample_from_logits",),
    reason="vLLM draws the drafts of a seeded request without its seed, so that its text differs from run to run",
    versions="vllm 0.29.0",
    apply=_draw_from_own_generators,
    probe=lambda proposers: (
        proposers.SpecDecodeBaseProposer._sample_from_logits.__code__.co_name == "sample_with_seeds"
    ),
)
