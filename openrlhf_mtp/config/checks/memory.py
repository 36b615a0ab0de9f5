"""Whether trainer ranks and engines fit on their GPUs. Out of memory comes late: in the first step, after minutes of
start-up, or in the middle of a rollout."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.precision import DTYPE_BYTES
from openrlhf_mtp.config.memory import (
    GIB,
    Moment,
    TrainerMemory,
    engine_memory,
    engine_share,
    trainer_memory,
)
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
        yield _too_large(context, memory, what)


def before_rl(context: JobContext) -> Iterator[Problem]:
    """Refused when the frozen policy's weights alone do not fit on a rank of the stage before RL.

    A rank with a share of the layers has embedding and output head whole beside it.
    """
    shape, gpu, mtp = context.shape, context.host.gpu_memory_gib, context.mtp
    if shape is None or gpu is None or mtp is None or context.trains_policy:
        return
    ranks = mtp.pretrain.num_ranks
    each = DTYPE_BYTES[context.precision.dtype]
    weights = each * shape.policy_parameters()
    whole = each * shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2)
    is_shared_out = context.zero_stage == 3 and ranks > 1
    held = weights // ranks + whole if is_shared_out else weights
    if held <= gpu * GIB:
        return
    what = f"the policy's weights take {_gib(held)} on each of {ranks} rank(s), and a GPU has {gpu:.1f} GiB"
    room = int(gpu * GIB / 2) - whole
    if room <= 0:
        advice = f"embedding and output head, which each rank needs whole, take {_gib(whole)} of it; take larger GPUs"
    else:
        stage = (
            ""
            if context.zero_stage == 3
            else "ds.zero_stage 3, which shares the layers out over the ranks, and "
        )
        advice = f"set {stage}num_ranks to {-(-weights // room)} or more"
    yield refuse("mtp.pretrain.num_ranks", f"{what}; {advice}")


def engine(context: JobContext) -> Iterator[Problem]:
    """A warning when an engine's share of a GPU leaves no cache for one sequence of full length: vLLM would not start.
    No GPU has confirmed the estimate yet."""
    memory, gpu = engine_memory(context), context.host.gpu_memory_gib
    if memory is None or gpu is None or not context.host.has_cuda:
        return
    share = context.real("vllm.gpu_memory_utilization")
    cache = memory.cache_of(share * gpu * GIB)
    if cache >= memory.token * context.max_len:
        return
    yield warn(
        "vllm.gpu_memory_utilization",
        f"of {share:g} x {gpu:.1f} GiB a worker of an engine needs {_gib(memory.weights)} for weights, "
        f"{_gib(memory.forward + memory.sampler)} for the largest step and {_gib(memory.process)} for itself, and the "
        f"cache of one sequence of data.max_len takes {_gib(memory.token * context.max_len)}; raise it, raise "
        "vllm.tensor_parallel_size, or lower mtp.rollout.max_num_seqs or max_num_batched_tokens",
    )


def _too_large(context: JobContext, memory: TrainerMemory, what: str) -> Problem:
    """The warning about the moment that needs most, with the setting that it depends on."""
    moment = memory.worst
    phase = "rollout" if moment is Moment.EXPERIENCE else "train"
    setting = f"{phase}.max_tokens_per_gpu" if context.dynamic_batches else f"{phase}.micro_batch_size"
    logits = memory.experience if moment is Moment.EXPERIENCE else memory.training
    smaller, longest = _smaller_batches(context, setting), "a micro-batch of samples as long as data.max_len"
    need, advice = f"the logits of {longest} take {_gib(logits)}", smaller
    if moment is Moment.UPDATE:
        setting, advice = "actor.num_gpus_per_node", _fewer_states(context)
        need = f"an update's gradients in float32 take {_gib(memory.update)}"
    elif moment is Moment.SYNC:
        setting, advice = "mtp.sync.bucket_mib", "lower it"
        need = f"a bucket of weights takes {_gib(memory.bucket)}"
    elif moment is Moment.HEAD and memory.head > max(logits, memory.activations):
        setting, advice = "mtp.anchor_fraction", f"lower it, or {smaller}"
        need = f"the head's chain and loss on {longest} take {_gib(memory.head)}"
    elif moment is Moment.JOINT and memory.joint > max(logits, memory.activations):
        setting, advice = "mtp.anchor_fraction", f"lower it, {smaller}, or set mtp.regime detach"
        need = f"the joint term's chain on {longest} takes {_gib(memory.joint)}"
    elif moment is not Moment.EXPERIENCE and memory.activations > logits // 2:
        need = (
            f"what the layers keep of {longest} takes {_gib(memory.activations)}, and logits {_gib(logits)}"
        )
        if not context.on("actor.gradient_checkpointing_enable"):
            setting, advice = "actor.gradient_checkpointing_enable", f"set it true, or {smaller}"
    beside = (
        f"{_gib(memory.states)} of weights, gradients and optimizer and {_gib(memory.process)} of the process"
    )
    return warn(setting, f"{need}, beside {beside}, and a GPU has {what}; {advice}")


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"


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
