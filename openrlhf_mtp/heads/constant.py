"""A module whose parameters are constants, for a loss that must go through it and not into it."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def constant(module: Module) -> Module:
    """A twin of the module with the same parameters, detached: gradients reach its inputs, never its parameters.

    Unlike `torch.func.functional_call` it lasts, so that a part which is recomputed in backward still sees constants.
    """
    twin = copy.copy(module)
    twin._parameters = {name: None if p is None else p.detach() for name, p in module._parameters.items()}  # type: ignore[misc]
    twin._buffers = {name: None if b is None else b.detach() for name, b in module._buffers.items()}
    twin._modules = {
        name: None if child is None else constant(child) for name, child in module._modules.items()
    }
    return twin
