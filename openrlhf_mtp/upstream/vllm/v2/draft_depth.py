"""Let the draft model see which depth vLLM's V2 runner is about to compute.

A head of several blocks needs the depth (`upstream.vllm.draft_depth`). V2's speculator holds the number of the draft's
step, from 0, in a tensor on the device, so that one CUDA graph can serve every depth but the first. A choice in Python
would be frozen in that graph: the model gets the tensor itself, and chooses by it. Models without `follow_step` are
left alone.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from openrlhf_mtp.upstream.patching import Patch

SPECULATOR = "vllm.v1.worker.gpu.spec_decode.autoregressive.speculator"


@runtime_checkable
class FollowsStep(Protocol):
    """A draft model that reads the number of the draft's step, counted from 0, from a tensor."""

    def follow_step(self, step: Any) -> None: ...


def _hand_over_step(speculators: ModuleType) -> None:
    speculator = speculators.AutoRegressiveSpeculator
    load = speculator.load_model

    @functools.wraps(load)
    def load_and_hand_over(self: Any, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **kwargs)
        if isinstance(self.model, FollowsStep):
            self.model.follow_step(self.current_draft_step)

    speculator.load_model = load_and_hand_over


PATCH = Patch(
    name="depth of a draft step, V2",
    target=SPECULATOR,
    touches=("AutoRegressiveSpeculator.load_model",),
    reason="V2's runner does not tell a draft model which depth it computes, and a head of several blocks needs it",
    versions="vllm 0.29.0",
    apply=_hand_over_step,
    probe=lambda speculators: (
        speculators.AutoRegressiveSpeculator.load_model.__code__.co_name == "load_and_hand_over"
    ),
)
