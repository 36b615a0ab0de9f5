"""New random numbers for each block that vLLM's V2 runner verifies as a whole.

V2 computes every random number from a request's seed and a position. Standard verification looks at none behind the
first draft that it rejects, so that each is used once. Block verification (Sun et al., arXiv 2403.10444) looks at those
of the whole block, and at its drafts, before it decides how many it accepts. The positions behind them come up again in
the next block, with the same numbers, of which by then something is known: they went with a rejection. The text is no
sample of the policy any more (docs/measured.md has by how much).

Here a request has another seed in each block, made of its own and of the position after which the block stands. A
seeded request still gives the same text again.
"""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch
from openrlhf_mtp.upstream.vllm.v2.draft_depth import SPECULATOR

VERIFIER = "vllm.v1.worker.gpu.spec_decode.rejection_sampler"
STRIDE = 0x9E3779B97F4A7C15 - 2**64
"""Between the seeds of neighboring positions: 2^64 over the golden ratio, odd, as int64."""


def with_block_seeds(seeds: Any, requests: Any, last_known: Any) -> Any:
    """A copy of all requests' seeds, in which those of a batch are their block's.

    Args:
        seeds: [R] int64, of every request that the runner holds.
        requests: [B] those of the batch.
        last_known: [B] the position of each one's last known token, after which its drafts stand.
    """
    rows, mixed = requests.long(), seeds.clone()
    mixed[rows] = seeds[rows] + (last_known.long() + 1) * STRIDE  # wraps around
    return mixed


def _draw_apart(speculators: ModuleType) -> None:
    speculator = speculators.AutoRegressiveSpeculator
    begin = speculator.on_prefill_begin

    @functools.wraps(begin)
    def begin_with_block_seeds(self: Any, num_reqs: int) -> None:
        begin(self, num_reqs)
        if self.speculative_config.rejection_sample_method == "block":
            last_known = self.input_buffers.positions[self.last_token_indices[:num_reqs]] + 1
            self.seeds.copy_(with_block_seeds(self.seeds, self.idx_mapping[:num_reqs], last_known))

    speculator.on_prefill_begin = begin_with_block_seeds


def _verify_apart(verifiers: ModuleType) -> None:
    verify = verifiers.rejection_sample
    signature = inspect.signature(verify)

    @functools.wraps(verify)
    def verify_with_block_seeds(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        if given.get("use_block_verification"):
            last_known = given["pos"][given["cu_num_logits"][:-1].long()]
            given["seed"] = with_block_seeds(given["seed"], given["idx_mapping"], last_known)
        return verify(*bound.args, **bound.kwargs)

    vars(verifiers)["rejection_sample"] = verify_with_block_seeds


PATCHES = (
    Patch(
        name="random numbers of a block's drafts",
        target=SPECULATOR,
        touches=("AutoRegressiveSpeculator.on_prefill_begin",),
        reason="vLLM draws a position's drafts with the same random numbers in each block, although a block that is "
        "verified as a whole tells something of those behind its accepted tokens",
        versions="vllm 0.29.0",
        apply=_draw_apart,
        probe=lambda speculators: (
            speculators.AutoRegressiveSpeculator.on_prefill_begin.__code__.co_name == "begin_with_block_seeds"
        ),
    ),
    Patch(
        name="random numbers of a block's verification",
        target=VERIFIER,
        touches=("rejection_sample",),
        reason="vLLM verifies a position with the same random number in each block, which is lossless only where "
        "nothing behind the first rejected draft is looked at",
        versions="vllm 0.29.0",
        apply=_verify_apart,
        probe=lambda verifiers: verifiers.rejection_sample.__code__.co_name == "verify_with_block_seeds",
    ),
)
