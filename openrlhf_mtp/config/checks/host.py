"""Checks of what this machine cannot run, or cannot run in combination."""

from collections.abc import Iterator

from openrlhf_mtp.config.families import NATIVE_FAMILIES
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.precision import FULL
from openrlhf_mtp.config.problem import Problem, error, refuse, warn

CUDA_SWITCHES = {
    "ds.packing_samples": "packing needs flash-attention, which is built for CUDA only",
    "train.dynamic_batch_enable": "OpenRLHF packs samples for it, which needs flash-attention",
    "ds.adam_offload": "there is no GPU to offload from",
    "ds.load_in_4bit": "4-bit kernels need CUDA",
    "ds.use_liger_kernel": "Liger kernels need CUDA",
    "ds.deepcompile": "DeepCompile needs CUDA",
    "ds.enable_sleep": "there is no GPU memory to give back",
    "vllm.enable_sleep": "there is no GPU memory to give back",
}


LINEAR_DTYPE, LINEAR_WIDTH = "bfloat16", 128
"""Of vLLM's linear attention on a CPU."""


def without_cuda(context: JobContext) -> Iterator[Problem]:
    """Settings that need a CUDA GPU, on a host that has none.

    If the driver did not answer, advice to do without CUDA would mislead; then the driver is what is wrong.
    """
    if context.host.has_cuda:
        return
    needs = list(_needs_cuda(context))
    if context.host.driver_problem:
        names = ", ".join(problem.setting for problem in needs)
        named = f", and {names} would need them" if needs else ""
        yield Problem(
            "error" if needs else "warning",
            "GPUs",
            f"{context.host.driver_problem}, so that nothing is known of them{named}; repair the driver, set "
            "CUDA_VISIBLE_DEVICES= to run on the CPU, or check for another machine with --gpus",
        )
        return
    if context.host.not_counted:
        yield warn(
            "GPUs",
            f"{context.host.not_counted} GPUs are not used, because this needs CUDA, and the job runs on the CPU; run "
            "on a machine with NVIDIA GPUs",
        )
    yield from needs


def _needs_cuda(context: JobContext) -> Iterator[Problem]:
    for setting, why in CUDA_SWITCHES.items():
        ignored = setting == "vllm.enable_sleep" and not context.colocates_all  # OpenRLHF drops it then
        if context.on(setting) and not ignored:
            yield error(setting, "true", f"false on a host without CUDA: {why}", "set false")
    attention = context.text("ds.attn_implementation") or ""
    if "flash" in attention:
        yield error("ds.attn_implementation", attention, "sdpa or eager on a host without CUDA", "set sdpa")


def full_precision(context: JobContext) -> Iterator[Problem]:
    """float32 is ours; some of OpenRLHF's ways work in 16 bits only."""
    if context.text("ds.param_dtype") != FULL:
        return
    attention = context.text("ds.attn_implementation") or ""
    if context.host.has_cuda and "flash" in attention:
        yield error("ds.param_dtype", FULL, f"bf16 or fp16 with {attention}", "set bf16, or attention sdpa")
    if context.on("ds.load_in_4bit"):
        yield error("ds.param_dtype", FULL, "bf16 with ds.load_in_4bit", "set bf16")
    if context.number("ds.tensor_parallel_size") > 1:
        yield error("ds.param_dtype", FULL, "bf16 with ds.tensor_parallel_size above 1", "set bf16")


def linear_attention(context: JobContext) -> Iterator[Problem]:
    """vLLM's CPU kernels of linear attention know one precision and one width; an engine says so when it computes."""
    config = context.model_config
    family = None if config is None else NATIVE_FAMILIES.get(str(config.get("model_type")))
    if config is None or family is None or not family.linear_attention or context.host.has_cuda:
        return
    if context.rollout_dtype != LINEAR_DTYPE:
        yield error(
            "mtp.rollout.dtype",
            context.rollout_dtype,
            f"{LINEAR_DTYPE} for {family.model_type} on a host without CUDA, where vLLM's linear attention knows no "
            "other",
            "set ds.param_dtype bf16",
        )
    for name in ("linear_key_head_dim", "linear_value_head_dim"):
        if config.get(name, LINEAR_WIDTH) != LINEAR_WIDTH:
            yield refuse(
                "actor.model_name_or_path",
                f"its config.json has {name} {config[name]}, expected {LINEAR_WIDTH} on a host without CUDA, where "
                "vLLM's linear attention knows no other; use another model, or a GPU",
            )


def transport(context: JobContext) -> Iterator[Problem]:
    """NCCL needs a GPU of its own on both sides, shared memory the same one."""
    backend = None if context.mtp is None else context.mtp.sync.backend
    if backend == "nccl" and not context.host.has_cuda:
        yield error("mtp.sync.backend", "nccl", "auto, ipc or gloo on a host without CUDA", "set auto")
    elif backend == "nccl" and context.colocates_engines:
        yield error(
            "mtp.sync.backend",
            "nccl",
            "auto, ipc or gloo with train.colocate_all: NCCL refuses two processes on one GPU",
            "set auto",
        )
    elif backend == "ipc" and context.host.has_cuda and not context.colocates_engines:
        yield error(
            "mtp.sync.backend",
            "ipc",
            "auto, nccl or gloo where the engines have GPUs of their own: ipc hands weights over on a shared GPU",
            "set auto, or train.colocate_all true without train.async_enable",
        )
