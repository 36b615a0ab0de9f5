"""A draft model that follows the depth gets V2's tensor of it, and any other model is left alone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from openrlhf_mtp.upstream.vllm.v2.draft_depth import PATCH


class Follows:
    step: Any = None

    def follow_step(self, step: Any) -> None:
        self.step = step


class Speculator:
    """vLLM's, as far as loading goes."""

    def __init__(self) -> None:
        self.current_draft_step = torch.tensor(0)

    def load_model(self, target_model: Any) -> None:
        self.model = target_model


def loaded(model: Any) -> Any:
    speculators = ModuleType(PATCH.target)
    vars(speculators)["AutoRegressiveSpeculator"] = type("Patched", (Speculator,), dict(vars(Speculator)))
    assert not PATCH.probe(speculators)
    PATCH.apply(speculators)
    assert PATCH.probe(speculators)
    speculator = speculators.AutoRegressiveSpeculator()
    speculator.load_model(model)
    return speculator


def test_the_model_gets_the_tensor_itself() -> None:
    model = Follows()
    assert loaded(model).current_draft_step is model.step


def test_a_model_that_does_not_ask_is_left_alone() -> None:
    model = object()
    assert loaded(model).model is model
