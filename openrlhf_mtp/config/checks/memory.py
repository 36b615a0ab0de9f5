"""Whether a trainer rank fits on its GPU. Out of memory comes late: in the first step, after minutes of start-up."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.memory import GIB, engine_share, trainer_memory
from openrlhf_mtp.config.problem import Problem, refuse, warn


def trainer(context: JobContext) -> Iterator[Problem]:
    """Refused when weights and optimizer alone do not fit; a warning when the logits of full-length samples do not."""
    memory = trainer_memory(context)
    gpu = context.host.gpu_memory_gib
    if memory is None or gpu is None or not context.trains_policy:
        return
    left = gpu * (1 - engine_share(context))
    what = (
        f"{left:.1f} GiB"
        if not engine_share(context)
        else f"{left:.1f} GiB (a colocated engine keeps the rest of {gpu:.1f})"
    )
    if memory.states > left * GIB:
        yield refuse(
            "actor.num_gpus_per_node",
            f"weights, gradients and optimizer take {memory.states / GIB:.1f} GiB on each of {context.ranks('actor')} "
            f"rank(s), and a GPU has {what} for them; {_fewer_states(context)}",
        )
    elif memory.peak > left * GIB:
        setting, need, micro = max(
            ("train.micro_batch_size", memory.training, "train"),
            ("rollout.micro_batch_size", memory.experience, "rollout"),
            key=lambda one: one[1],
        )
        if context.dynamic_batches:
            setting = f"{micro}.max_tokens_per_gpu"
        yield warn(
            setting,
            f"the logits of a micro-batch of samples as long as data.max_len take {need / GIB:.1f} GiB, beside "
            f"{memory.states / GIB:.1f} GiB of weights, gradients and optimizer, and a GPU has {what}; "
            f"{_smaller_batches(context, setting)}",
        )


def _fewer_states(context: JobContext) -> str:
    sleep = (
        "set vllm.enable_sleep true, "
        if context.colocates_engines and not context.on("vllm.enable_sleep")
        else ""
    )
    return f"{sleep}use more GPUs, ds.zero_stage 3, ds.adam_offload or ds.lora.rank"


def _smaller_batches(context: JobContext, setting: str) -> str:
    sleep = (
        " and vllm.enable_sleep true"
        if context.colocates_engines and not context.on("vllm.enable_sleep")
        else ""
    )
    return f"lower {setting} or data.max_len{sleep}"
