"""The patches of vLLM's processes, and whether they are live in this one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from openrlhf_mtp.upstream import uncompiled
from openrlhf_mtp.upstream.vllm import (
    chunk_ends,
    compile_key,
    context_end,
    draft_depth,
    draft_seeds,
    latent_rotation,
    packed_experts,
    ray_on_cpu,
    sampler_profile,
    sampling,
    seeds,
)
from openrlhf_mtp.upstream.vllm.v2 import block_noise
from openrlhf_mtp.upstream.vllm.v2 import draft_depth as draft_depth_v2
from openrlhf_mtp.upstream.vllm.v2 import sampler_profile as sampler_profile_v2

V1_PATCHES = (
    sampling.PATCH,
    draft_depth.PATCH,
    *chunk_ends.PATCHES,
    context_end.PATCH,
    seeds.PATCH,
    draft_seeds.PATCH,
    sampler_profile.PATCH,
)
"""Of vLLM's V1 model runner, its proposer and its sampler."""
V2_PATCHES = (draft_depth_v2.PATCH, *block_noise.PATCHES, sampler_profile_v2.PATCH)
"""Of the V2 model runner, its speculator and its sampler."""
_OWN_RANDOMNESS = "none: every random number is computed from a request's seed and a position"
IN_V2: Mapping[str, str] = {
    sampling.PATCH.name: "none: V2 verifies with kernels of its own, in Triton",
    draft_depth.PATCH.name: draft_depth_v2.PATCH.name,
    chunk_ends.PATCHES[0].name: "none: V2 keeps the token after each chunk",
    chunk_ends.PATCHES[1].name: "none: V2 drafts with the token after each chunk",
    context_end.PATCH.name: "none: V2 asks no such question, and keeps positions inside the context",
    seeds.PATCH.name: _OWN_RANDOMNESS,
    draft_seeds.PATCH.name: _OWN_RANDOMNESS,
    sampler_profile.PATCH.name: sampler_profile_v2.PATCH.name,
}
"""Each patch of V1's runner -> its counterpart in V2's, or why there is none."""
_ANY_RUNNER = (
    compile_key.PATCH,
    latent_rotation.PATCH,
    packed_experts.PATCH,
    ray_on_cpu.PATCH,
    *uncompiled.ENGINE_PATCHES,
)

PATCHES = (*V1_PATCHES, *V2_PATCHES, *_ANY_RUNNER)


def not_live(*, v2_runner: bool = False) -> list[str]:
    """Names of the patches without effect in this process, those of its model runner and those of any.

    Ask after the engine's worker has loaded its model: vLLM picks the sampling kernels no earlier.
    """
    states = {
        patch.name: patch.is_live(importlib.import_module(patch.target))
        for patch in (*(V2_PATCHES if v2_runner else V1_PATCHES), *_ANY_RUNNER)
        if patch is not sampling.PATCH  # CPU workers alone may import its target
    }
    return [name for name, live in {sampling.PATCH.name: sampling.is_chosen(), **states}.items() if not live]
