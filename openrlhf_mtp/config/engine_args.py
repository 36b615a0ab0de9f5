"""Arguments of vLLM's engine that `mtp.rollout.engine_args` may not set: a job sets them elsewhere, or not at all.

All others are vLLM's to type and to judge (`rollout.engine_args`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from openrlhf_mtp.config.problem import Problem, error

SETTING = "mtp.rollout.engine_args"

SET_BY: Mapping[str, str] = {
    "model": "actor.model_name_or_path",
    "tokenizer": "actor.model_name_or_path",
    "seed": "train.seed",
    "max_model_len": "data.max_len",
    "tensor_parallel_size": "vllm.tensor_parallel_size",
    "enable_prefix_caching": "vllm.enable_prefix_caching",
    "enforce_eager": "vllm.enforce_eager",
    "gpu_memory_utilization": "vllm.gpu_memory_utilization",
    "enable_sleep_mode": "vllm.enable_sleep",
    "limit_mm_per_prompt": "data.max_images_per_prompt",
    "dtype": "mtp.rollout.dtype",
    "max_num_seqs": "mtp.rollout.max_num_seqs",
    "max_num_batched_tokens": "mtp.rollout.max_num_batched_tokens",
    "kv_cache_memory_bytes": "mtp.rollout.kv_cache_gib",
    "async_scheduling": "mtp.rollout.async_scheduling",
    "speculative_config": "mtp.depths and mtp.rollout",
}
"""Argument -> the job's setting that it comes from."""

_SYNC = "the weight sync needs them as they are"
_ROUNDED = (
    "what engines compute with is compared with what was sent, and an update is smaller than the rounding to 8 bits "
    "(up to 6 %), which would hide the weights of an earlier step; kv_cache_dtype fp8 and vllm.tensor_parallel_size "
    "make room"
)
_COUNTED = "acceptance is counted by them"
KEPT: Mapping[str, str] = {
    "distributed_executor_backend": "OpenRLHF chooses how workers run",
    "worker_cls": _SYNC,
    "worker_extension_cls": _SYNC,
    "weight_transfer_config": _SYNC,
    "logprobs_mode": "log-probs must be those of the distribution that was sampled from",
    "max_logprobs": "log-probs must be those of the distribution that was sampled from",
    "disable_log_stats": _COUNTED,
    "per_request_spec_decode_metrics": _COUNTED,
    "trust_remote_code": "OpenRLHF sets it",
    "quantization": _ROUNDED,
    "quantization_config": _ROUNDED,
    "enable_lora": "adapters are merged before weights are sent",
    "pipeline_parallel_size": "the head shares the policy's embedding and output head; use "
    "vllm.tensor_parallel_size",
    "prefill_context_parallel_size": "a round addresses tensor-parallel workers",
    "decode_context_parallel_size": "a round addresses tensor-parallel workers",
    "enable_expert_parallel": "a worker holds its share of every expert, as it is verified",
    "enable_eplb": "a worker holds its share of every expert, as it is verified",
    "data_parallel_size": "OpenRLHF runs several engines; use vllm.num_engines",
}
"""Argument -> why no job sets it."""


def owned(arguments: Mapping[str, Any]) -> Iterator[Problem]:
    """An error for each argument that is set elsewhere, or not at all."""
    for name, value in arguments.items():
        if name in SET_BY:
            yield error(f"{SETTING}.{name}", value, f"nothing: {SET_BY[name]} sets it", f"set {SET_BY[name]}")
        elif name in KEPT:
            yield error(f"{SETTING}.{name}", value, f"nothing: {KEPT[name]}", "leave it out")
