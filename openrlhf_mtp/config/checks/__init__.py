"""Checks that refuse a job before anything is started.

Each check is a function from a `JobContext` to problems; CHECKS lists them in the order they are reported.
To add one, write the function in the file of its subject and append it here.
"""

from collections.abc import Callable, Iterable

from openrlhf_mtp.config.checks import (
    batches,
    data,
    files,
    head,
    host,
    job_file,
    memory,
    model,
    native,
    openrlhf_flags,
    optimizer,
    placement,
    regime,
    resume,
    rollout,
    sampling,
    tensor_parallel,
    tokenizer,
)
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, by_level

CHECKS: tuple[Callable[[JobContext], Iterable[Problem]], ...] = (
    job_file.notes,
    files.prompt_data,
    files.evaluation_data,
    data.prompt_rows,
    data.evaluation_rows,
    data.chat_template,
    files.reward,
    files.run_folder,
    resume.checkpoint,
    resume.same_prompts,
    model.policy,
    model.unsupported_modes,
    model.adapters_of_experts,
    model.quantized,
    model.adapted,
    model.context_length,
    model.dropout,
    native.modes,
    tokenizer.embedded,
    tokenizer.ends,
    head.head_fits,
    head.head_training,
    regime.joint,
    regime.unused,
    batches.optimizer_batches,
    batches.left_over,
    batches.lengths,
    batches.overlong,
    batches.dynamic,
    optimizer.muon,
    optimizer.average,
    placement.engines,
    tensor_parallel.even_shards,
    placement.colocation,
    placement.gpus,
    memory.trainer,
    memory.before_rl,
    memory.engine,
    sampling.distribution,
    sampling.drafts,
    sampling.block_verification,
    rollout.engine_args,
    rollout.logprobs,
    rollout.async_scheduling,
    openrlhf_flags.unread,
    openrlhf_flags.attention,
    openrlhf_flags.adapters,
    openrlhf_flags.mixture,
    host.without_cuda,
    host.full_precision,
    host.linear_attention,
    host.transport,
)


def check(context: JobContext) -> list[Problem]:
    """Run every check; errors first, otherwise in the order of CHECKS."""
    return by_level(problem for one in CHECKS for problem in one(context))
