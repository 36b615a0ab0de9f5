"""float32 for OpenRLHF, whose `ds.param_dtype` knows bf16 and fp16 only. On processors it is often the fastest.

Two places know the names: the parser's choices, and the one function that makes a torch type of them, which the
policy, the reference, the critic and the reward model are all loaded with. DeepSpeed's configuration switches 16 bits
on by name, so that another name leaves it in float32. Checked on openrlhf 0.11.2.
"""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

from openrlhf_mtp.config.machine.precision import AUTO, FULL, SETTING
from openrlhf_mtp.upstream.patching import Patch

HELP = (
    "precision of trainers and engines; auto: bf16 with CUDA, otherwise the faster of bf16 and fp32 by a measurement "
    "at the start (fp32 and auto are openrlhf-mtp's)"
)


def extend_choices(parser: argparse.ArgumentParser) -> bool:
    """Let the parser take `fp32` and `auto`, the new default; false when it has no such flag any more."""
    found = [action for action in parser._actions if f"--{SETTING}" in action.option_strings]
    for action in found:
        action.choices = [*(action.choices or ()), FULL, AUTO]
        action.default, action.help = AUTO, HELP
    return len(found) == 1


def _know_float32(module: ModuleType) -> None:
    import torch

    known = module.convert_to_torch_dtype

    def convert_to_torch_dtype(param_dtype: str) -> Any:
        return torch.float32 if param_dtype == FULL else known(param_dtype)

    module.__dict__["convert_to_torch_dtype"] = convert_to_torch_dtype


def _knows_float32(module: ModuleType) -> bool:
    import torch

    try:
        return bool(module.convert_to_torch_dtype(FULL) is torch.float32)
    except ValueError:
        return False


PATCH = Patch(
    name="models in float32",
    target="openrlhf.utils.utils",
    touches=("convert_to_torch_dtype",),
    reason="OpenRLHF loads models in 16 bits only, which processors without the instructions for it compute several "
    "times slower than float32",
    versions="openrlhf 0.11.2",
    apply=_know_float32,
    probe=_knows_float32,
)
