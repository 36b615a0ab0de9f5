"""Compiled drafts are kept by what they were compiled from.

vLLM keeps compiled graphs on disk under a hash of the engine's configuration and takes one that it finds without a
look at the model. The draft's configuration is in that hash for drafts that read states of several layers of the
target, and for no others (`SpeculativeConfig.compute_hash`). So a head of two blocks would run as the head of one that
stood in its folder before, or the reverse, and a native head with another head's wiring.
"""

from __future__ import annotations

import functools
import hashlib
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch


def _hash_draft(module: ModuleType) -> None:
    config = module.SpeculativeConfig
    compute = config.compute_hash

    @functools.wraps(compute)
    def hash_with_draft(self: Any) -> str:
        own: str = compute(self)
        draft = self.draft_model_config
        if draft is None:
            return own
        described = f"{own} {draft.hf_config.to_json_string(use_diff=False)}"
        return hashlib.sha256(described.encode()).hexdigest()

    config.compute_hash = hash_with_draft


PATCH = Patch(
    name="compiled drafts by their configuration",
    target="vllm.config.speculative",
    touches=("SpeculativeConfig.compute_hash",),
    reason="vLLM takes a compiled draft from its cache that was compiled for another head of the same policy",
    versions="vllm 0.29.0",
    apply=_hash_draft,
    probe=lambda module: module.SpeculativeConfig.compute_hash.__code__.co_name == "hash_with_draft",
)
