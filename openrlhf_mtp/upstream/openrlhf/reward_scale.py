"""Mean and standard deviation of a reward model (`reward.normalize_enable`) as its `config.json` has them.

OpenRLHF sets both while it constructs the model. transformers 5 constructs models without memory and fills such buffers
with whatever the memory holds afterwards: rewards were divided by that. The critic has the same two buffers. Checked on
openrlhf 0.11.2.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch

_UNSCALED = {"mean": 0.0, "std": 1.0}


def restore_scale(model: Any) -> None:
    """Write a loaded model's mean and standard deviation again; 0 and 1 where its configuration has none."""
    for name, default in _UNSCALED.items():
        getattr(model, name).fill_(getattr(model.config, name, default))


def _restore_after_loading(module: ModuleType) -> None:
    load = module.get_llm_for_sequence_regression

    @functools.wraps(load)
    def load_with_scale(*args: Any, **kwargs: Any) -> Any:
        model = load(*args, **kwargs)
        restore_scale(model)
        return model

    module.get_llm_for_sequence_regression = load_with_scale  # type: ignore[attr-defined]


PATCH = Patch(
    name="reward models keep their scale",
    target="openrlhf.models.model",
    touches=("get_llm_for_sequence_regression",),
    reason="transformers leaves mean and standard deviation of a reward model to chance",
    versions="openrlhf 0.11.2, transformers 5.15.0",
    apply=_restore_after_loading,
    probe=lambda module: module.get_llm_for_sequence_regression.__code__.co_name == "load_with_scale",
)
