"""A layer of experts in a vLLM worker, for its trial. Runs in the worker.

An expert of gated projections G, U [I, H] and D [H, I] computes `D (silu(G x) * U x)`. Its trial runs it on the columns
of the identity times +-s, with a weight of 1 for this expert and 0 for the others. s = 2^20 makes the gate's
pre-activations so large that silu(g) is g or 0 exactly, and products with a power of two are exact. So the first
projection gives the weights' own bits, the product g u is rounded once, and the last projection is a sum in float32 of
known numbers: nothing is left to explain but that rounding and the output's. The two signs together use each pair of
weights once.

An expert's tensors come under the names that transformers gives them: stacked, [experts, 2 I, H] and [experts, H, I].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openrlhf_mtp.sync.readback import Probe
from openrlhf_mtp.sync.trial import PackedLayer, Reference, Rounding

if TYPE_CHECKING:  # needs vLLM
    from openrlhf_mtp.sync.loaded_layers import LoadedLayer

SCALES = {torch.float16: 2.0**5}
"""A float16 ends at 65,504, so that silu stays a curve there, whose rounding costs power; other types take 2^20."""
LARGE = 20.0
"""Where silu(g) is g in float32: 1 + exp(-20) rounds to 1."""
CHOSEN, NOT_CHOSEN = 100.0, -100.0
"""Router logits that leave weights of 1 and 0."""


class PackedExperts(PackedLayer):
    """The experts of one layer, this worker's shard of them."""

    part = "expert"

    def __init__(self, layer: LoadedLayer) -> None:
        module: Any = layer.module
        self.path, self.parts = layer.path, module.global_num_experts
        self.specs = tuple(held.spec for held in layer.slices)
        self.copies = layer.slices[0].copies
        self._module = module
        width = module.moe_config.intermediate_size // module.moe_config.tp_size
        self._shard = slice(module.moe_config.tp_rank * width, (module.moe_config.tp_rank + 1) * width)

    def is_loaded(self) -> bool:
        return not self._module.w13_weight.is_meta

    def inputs(self, probe: Probe) -> Tensor:
        width = self.specs[0].shape[-1]
        chosen = probe.chosen(width)
        columns = torch.arange(width) if chosen is None else chosen
        dtype, device = self._module.params_dtype, self._module.w13_weight.device
        units = torch.zeros(len(columns), width, dtype=dtype, device=device)
        units[torch.arange(len(columns), device=device), columns.to(device)] = SCALES.get(dtype, 2.0**20)
        return torch.cat([units, -units])

    def run(self, part: int, inputs: Tensor) -> Tensor:
        module = self._module
        if module.quant_method.is_monolithic:
            logits = inputs.new_full((len(inputs), self.parts), NOT_CHOSEN, dtype=torch.float32)
            logits[:, part] = CHOSEN
            with _without_bias(module):
                output: Tensor = module.forward_monolithic(x=inputs, router_logits=logits)
            return output
        chosen = (part + torch.arange(module.top_k, device=inputs.device)) % self.parts
        weights = torch.zeros(len(inputs), module.top_k, device=inputs.device)
        weights[:, 0] = 1
        ids = chosen.to(module.quant_method.topk_indices_dtype or torch.int32).repeat(len(inputs), 1)
        return module.forward_modular(x=inputs, topk_weights=weights, topk_ids=ids)

    def reference(
        self, part: int, inputs: Tensor, tensors: Mapping[str, Tensor], rounding: Rounding
    ) -> Reference:
        gate_up, down = (tensors[spec.name][part] for spec in self.specs)
        gate, up = (inputs.double() @ half[self._shard].double().t() for half in gate_up.chunk(2))
        outwards = down[:, self._shard].double().t()
        hidden = rounding.of(gate * gate.sigmoid() * up, inputs.dtype)
        # where silu was rounded itself, the product's rounding may fall otherwise; the exponential is good to 2^-20
        curved = max(torch.finfo(inputs.dtype).eps, 2.0**-18) * (gate.abs() < LARGE)
        sums = (len(outwards) + 2) * torch.finfo(torch.float32).eps / 2
        return Reference(hidden @ outwards, (hidden.abs() * (sums + curved)) @ outwards.abs())


@contextmanager
def _without_bias(module: Any) -> Iterator[None]:
    """The router's bias, which a kernel that routes by itself adds to the scores, is zero: it could choose others."""
    bias = getattr(module, "e_score_correction_bias", None)
    if bias is None:
        yield
        return
    module.e_score_correction_bias = nn.Parameter(torch.zeros_like(bias), requires_grad=False)
    try:
        yield
    finally:
        module.e_score_correction_bias = bias
