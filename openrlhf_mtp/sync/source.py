"""Where a round's tensors come from on the trainer's side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openrlhf_mtp.sync.manifest import Manifest, TensorSpec


@dataclass(frozen=True)
class WeightSource:
    """One model's tensors under checkpoint names.

    `manifest` gives full shapes and the dtype on the wire (the engine's), which may differ from the trainer's.
    `tensors()` starts a fresh pass that yields (name, full tensor) in the manifest's order. A tensor is only used
    until the next one is asked for, so a pass can gather sharded parameters one at a time.
    """

    manifest: Manifest
    tensors: Callable[[], Iterable[tuple[str, Tensor]]]


def module_source(module: nn.Module, dtype: torch.dtype) -> WeightSource:
    """The parameters of an unsharded module, sent as `dtype`; tied parameters travel once, under their first name."""
    wire_dtype = str(dtype).removeprefix("torch.")

    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from module.named_parameters()

    specs = (TensorSpec(name, tuple(p.shape), wire_dtype) for name, p in module.named_parameters())
    return WeightSource(Manifest(tuple(specs)), tensors)
