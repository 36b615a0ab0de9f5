"""Tell the draft model which depth vLLM is about to compute.

vLLM's proposer runs the draft once over all positions (depth 1) and then one token at a time (depths 2..k),
but does not tell the model the depth. A head of several blocks needs it: depth j uses block (j - 1) % n.
The proposer builds attention metadata before each forward and there it does know the depth, from 0; the
wrapper passes it on, counted from 1. Models without `begin_depth` are left alone.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from openrlhf_mtp.upstream.patching import Patch, install

_TARGET = "vllm.v1.spec_decode.llm_base_proposer"
_METHOD = "build_per_group_and_layer_attn_metadata"


@runtime_checkable
class KnowsDepth(Protocol):
    """A draft model that wants to be told the depth, counted from 1."""

    def begin_depth(self, depth: int) -> None: ...


def _announce_depth(proposers: ModuleType) -> None:
    proposer = proposers.SpecDecodeBaseProposer
    build = vars(proposer)[_METHOD]

    @functools.wraps(build)
    def build_and_announce(self: Any, common_attn_metadata: Any, draft_index: int = 0) -> Any:
        if isinstance(self.model, KnowsDepth):
            self.model.begin_depth(draft_index + 1)
        return build(self, common_attn_metadata, draft_index=draft_index)

    setattr(proposer, _METHOD, build_and_announce)


def _is_live(proposers: ModuleType) -> bool:
    return "build_and_announce" in vars(proposers.SpecDecodeBaseProposer)[_METHOD].__code__.co_name


PATCH = Patch(
    name="depth of a draft step",
    target=_TARGET,
    reason="vLLM does not tell a draft model which depth it computes, and a head of several blocks needs it",
    versions="vllm 0.29.0",
    apply=_announce_depth,
    probe=_is_live,
)


def apply() -> None:
    """Register the patch in this process; it acts when vLLM imports its proposer."""
    install([PATCH])


def probe() -> bool:
    """True when the proposer of this process announces depths."""
    return _is_live(importlib.import_module(_TARGET))
