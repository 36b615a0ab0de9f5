"""With dynamic batches OpenRLHF trains on the last micro-batch of each optimizer step only; keep the others' gradients.

Dynamic batches have a different number of micro-batches in each optimizer step, so OpenRLHF tells DeepSpeed that every
backward completes a step (`gradient_accumulation_steps: 1`) and calls `step()` when it really is complete. DeepSpeed's
ZeRO-1 and -2 then start over at every backward. On a tiny model, two micro-batches a step: gradient norm 3.37 where
the same samples in one micro-batch give 5.05, and 5.05 with this patch. DeepSpeed has a mode for exactly this, in
which `step()` is the boundary.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch

UNMANAGED = {"managed_gradient_accumulation": False}


def _let_step_be_the_boundary(module: ModuleType) -> None:
    strategy = module.DeepspeedStrategy
    train_config = strategy.get_ds_train_config

    @functools.wraps(train_config)
    def with_caller_owned_steps(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        config: dict[str, Any] = train_config(self, *args, **kwargs)
        return {**config, **UNMANAGED} if self.use_dynamic_batch else config

    strategy.get_ds_train_config = with_caller_owned_steps


def _is_live(module: ModuleType) -> bool:
    return module.DeepspeedStrategy.get_ds_train_config.__code__.co_name == "with_caller_owned_steps"


PATCH = Patch(
    name="dynamic batches accumulate",
    target="openrlhf.utils.deepspeed.deepspeed",
    touches=("DeepspeedStrategy.get_ds_train_config",),
    reason="with dynamic batches only the last micro-batch of an optimizer step would be trained on",
    versions="openrlhf 0.11.2, deepspeed 0.19.6",
    apply=_let_step_be_the_boundary,
    probe=_is_live,
)
