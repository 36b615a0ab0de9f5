"""ZeRO-3 rounds a model's rotary frequencies to bfloat16; the rollout engine keeps them in float32.

DeepSpeed builds a ZeRO-3 model inside a context in which every new float tensor has the model's dtype, and the
frequencies are such tensors, not parameters that a checkpoint would restore: 0.5623 becomes 0.5625, which is 0.16
radian after 1000 tokens, so trainer and engine disagree about the policy more with every token. DeepSpeed keeps
float32 buffers in float32 when it wraps a model, so ZeRO-2 is not affected and what is restored stays.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.patching import Patch

_BUFFERS = ("inv_freq", "original_inv_freq")


def restore_rotary_frequencies(model: Any) -> int:
    """Recompute frequencies that are not float32, outside DeepSpeed's context; returns how many modules had such.

    Args:
        model: a Hugging Face model (or anything without rotary embeddings, which is left alone).
    """
    import torch

    restored = 0
    for module in model.modules():
        own = dict(module.named_buffers(recurse=False))
        rounded = {name: own[name] for name in _BUFFERS if name in own and own[name].dtype != torch.float32}
        if rounded:
            fresh = type(module)(module.config)
            for name, buffer in rounded.items():
                module.register_buffer(name, fresh.get_buffer(name).to(buffer.device), persistent=False)
            restored += 1
    return restored


def _restore_after_construction(module: ModuleType) -> None:
    actor = module.Actor
    construct = actor.__init__

    @functools.wraps(construct)
    def construct_and_restore(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        restore_rotary_frequencies(self.model)

    actor.__init__ = construct_and_restore


def _is_live(module: ModuleType) -> bool:
    return "construct_and_restore" in module.Actor.__init__.__code__.co_name


PATCH = Patch(
    name="rotary frequencies in float32",
    target="openrlhf.models.actor",
    touches=("Actor.__init__",),
    reason="a ZeRO-3 model's rotary frequencies are rounded to bfloat16, unlike the rollout engine's",
    versions="openrlhf 0.11.2, deepspeed 0.19.6, transformers 5.15.0",
    apply=_restore_after_construction,
    probe=_is_live,
)
