"""Tell the draft model which depth vLLM is about to compute.

vLLM's proposer runs the draft once over all positions (depth 1) and then one token at a time (depths 2..k),
but does not tell the model the depth. A head of several blocks needs it: depth j uses block (j - 1) % n.
The proposer builds attention metadata before each forward and there it does know the depth, from 0; the
wrapper passes it on, counted from 1. Models without `begin_depth` are left alone.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from openrlhf_mtp.upstream.patching import Patch

_TARGET = "vllm.v1.spec_decode.llm_base_proposer"


@runtime_checkable
class KnowsDepth(Protocol):
    """A draft model that wants to be told the depth, counted from 1."""

    def begin_depth(self, depth: int) -> None: ...


def _announce_depth(proposers: ModuleType) -> None:
    proposer = proposers.SpecDecodeBaseProposer
    build = proposer.build_per_group_and_layer_attn_metadata

    @functools.wraps(build)
    def build_and_announce(self: Any, common_attn_metadata: Any, draft_index: int = 0) -> Any:
        if isinstance(self.model, KnowsDepth):
            self.model.begin_depth(draft_index + 1)
        return build(self, common_attn_metadata, draft_index=draft_index)

    proposer.build_per_group_and_layer_attn_metadata = build_and_announce


def _is_live(proposers: ModuleType) -> bool:
    build = proposers.SpecDecodeBaseProposer.build_per_group_and_layer_attn_metadata
    return bool(build.__code__.co_name == "build_and_announce")


PATCH = Patch(
    name="depth of a draft step",
    target=_TARGET,
    touches=("SpecDecodeBaseProposer.build_per_group_and_layer_attn_metadata",),
    reason="vLLM does not tell a draft model which depth it computes, and a head of several blocks needs it",
    versions="vllm 0.29.0",
    apply=_announce_depth,
    probe=_is_live,
)
