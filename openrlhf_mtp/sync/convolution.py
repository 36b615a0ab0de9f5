"""The weights that a linear-attention layer's convolution computes with. Runs in the worker.

A causal convolution of width W gives each channel y_t = sum_i w_i x_{t - W + 1 + i}. Of an impulse at t = 0 it gives
the weights themselves, the last one first, exactly: each output is 1 * w plus zeros. vLLM's CPU kernel packs them into
an order of its own and keeps a plain copy beside them for drafts that its kernel does not take; both are read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PLAIN = "_cpu_unpacked_conv_weight"
"""vLLM's name for the plain copy [C, W] beside a packed weight."""


def is_packed(module: nn.Module) -> bool:
    """Whether a kernel reads this convolution's weight in an order of its own."""
    return hasattr(module, PLAIN)


def taps(module: Any) -> Tensor:
    """The weight [C, W] of a packed convolution, by running its kernel on an impulse."""
    from vllm import _custom_ops as ops

    plain: Tensor = getattr(module, PLAIN)
    channels, width = plain.shape
    impulse = torch.zeros(width, channels, dtype=plain.dtype)
    impulse[0] = 1
    response: Tensor = ops.causal_conv1d_fwd_cpu(
        x=impulse.t(),
        weight=module.weight,
        bias=None,
        conv_states=torch.zeros(1, width - 1, channels, dtype=plain.dtype).transpose(1, 2),
        query_start_loc=torch.tensor([0, width], dtype=torch.int32),
        cache_indices=torch.zeros(1, dtype=torch.int32),
        has_initial_state=torch.zeros(1, dtype=torch.bool),
        silu_activation=False,
        is_vnni=True,
    )
    return response.flip(1)
