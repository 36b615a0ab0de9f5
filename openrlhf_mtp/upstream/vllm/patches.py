"""The patches of vLLM's processes, and whether they are live in this one."""

from __future__ import annotations

import importlib

from openrlhf_mtp.upstream import uncompiled
from openrlhf_mtp.upstream.vllm import (
    chunk_ends,
    context_end,
    draft_depth,
    draft_seeds,
    ray_on_cpu,
    sampler_profile,
    sampling,
    seeds,
)

PATCHES = (
    sampling.PATCH,
    draft_depth.PATCH,
    *chunk_ends.PATCHES,
    context_end.PATCH,
    seeds.PATCH,
    draft_seeds.PATCH,
    ray_on_cpu.PATCH,
    sampler_profile.PATCH,
    *uncompiled.ENGINE_PATCHES,
)


def not_live() -> list[str]:
    """Names of the patches without effect in this process.

    Ask after the engine's worker has loaded its model: vLLM picks the sampling kernels no earlier.
    """
    states = {
        patch.name: patch.is_live(importlib.import_module(patch.target))
        for patch in PATCHES
        if patch is not sampling.PATCH  # CPU workers alone may import its target
    }
    return [name for name, live in {sampling.PATCH.name: sampling.is_chosen(), **states}.items() if not live]
