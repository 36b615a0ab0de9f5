"""Batch sizes and lengths that would train on nothing, drop samples or leave no room for the prompt."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, refuse, warn, warning


def optimizer_batches(context: JobContext) -> Iterator[Problem]:
    """A rollout should be a whole number of optimizer steps, and each must be a whole number of micro batches."""
    batch, samples = context.number("train.batch_size"), context.samples_per_step
    if samples % batch:
        yield warning(
            "train.batch_size",
            batch,
            f"a divisor of rollout.batch_size * rollout.n_samples_per_prompt = "
            f"{context.number('rollout.batch_size')} * {context.number('rollout.n_samples_per_prompt')} = "
            f"{samples}: the last update of each rollout has {samples % batch} samples",
            "choose a divisor if updates should be of one size",
        )
    shared = context.number("ds.ring_attn_size") * context.number("ds.tensor_parallel_size")
    per_forward = context.number("train.micro_batch_size") * max(1, context.ranks("actor") // shared)
    if not context.dynamic_batches and batch % per_forward:
        yield error(
            "train.batch_size",
            batch,
            f"a multiple of train.micro_batch_size * data-parallel ranks = {per_forward} (DeepSpeed requires it)",
            "change one of the two",
        )


def left_over(context: JobContext) -> Iterator[Problem]:
    """An episode's last rollout has the prompts that are left over; every rank needs as many samples as another."""
    if context.prompts is None or not context.trains_policy:
        return
    updates = context.updates
    rollouts = updates.rollouts(context.prompts)
    if not any(map(updates.trained, rollouts)):
        yield refuse(
            "data.prompt_dataset",
            f"{context.prompts} prompt(s) give {sum(rollouts)} responses, and {updates.ranks} ranks need at least one "
            "each to train on; give more prompts or use fewer ranks",
        )
    elif lost := sum(rollouts) - sum(map(updates.trained, rollouts)):
        yield warn(
            "data.prompt_dataset",
            f"{context.prompts} prompt(s) are not a multiple of rollout.batch_size = {updates.rollout_prompts}: "
            f"{lost} responses of the last rollout of each episode cannot be shared out equally over {updates.ranks} "
            "ranks and are not trained on; leave prompts out with data.max_samples, or accept it",
        )


def lengths(context: JobContext) -> Iterator[Problem]:
    """OpenRLHF cuts the prompt to data.max_len - rollout.max_new_tokens, possibly to nothing."""
    limits = [("rollout.max_new_tokens", context.job.value("rollout.max_new_tokens"))]
    if context.mtp is not None:
        limits.append(("mtp.pretrain.max_new_tokens", context.mtp.pretrain.max_new_tokens))
    for name, limit in limits:
        if isinstance(limit, int) and limit >= context.max_len:
            yield error(
                name,
                limit,
                f"less than data.max_len = {context.max_len}, or no token is left for the prompt",
                "lower it or raise data.max_len",
            )
        if context.mtp is not None and isinstance(limit, int) and limit <= context.mtp.depths:
            yield error(
                name,
                limit,
                f"more than mtp.depths = {context.mtp.depths}: no response would be long enough to train all depths on",
                "raise it or lower mtp.depths",
            )


def overlong(context: JobContext) -> Iterator[Problem]:
    """OpenRLHF asserts this in the first step, after its rollout."""
    buffer = context.job.value("reward.overlong_buffer_len")
    given = context.job.value("rollout.max_new_tokens")
    setting, limit = ("rollout.max_new_tokens", given) if given else ("data.max_len", context.max_len)
    if isinstance(buffer, int | float) and isinstance(limit, int) and buffer > limit:
        yield error(
            "reward.overlong_buffer_len",
            buffer,
            f"at most {setting} = {limit}: it is the last part of the longest response, in which the penalty grows",
            f"lower it or raise {setting}",
        )


def dynamic(context: JobContext) -> Iterator[Problem]:
    """Dynamic batches step when we say so, and DeepSpeed has no such mode for these (`_do_sanity_check`, 0.19.6)."""
    if not context.dynamic_batches:
        return
    why = "with train.dynamic_batch_enable: DeepSpeed cannot let the caller end an optimizer step then"
    if context.on("ds.deepcompile"):
        yield error("ds.deepcompile", "true", f"false {why}", "set one of the two false")
    if context.on("ds.overlap_comm") and context.zero_stage < 2:
        stage = context.zero_stage
        yield error(
            "ds.overlap_comm", f"true with ds.zero_stage {stage}", f"false {why}", "set ds.zero_stage 2 or 3"
        )
