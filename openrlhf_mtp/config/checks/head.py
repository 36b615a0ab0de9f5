"""The head: its folder, that it belongs to this policy, and how it is trained."""

from collections.abc import Iterator

from openrlhf_mtp.config.head_contract import head_problems
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, warning


def head_fits(context: JobContext) -> Iterator[Problem]:
    """The head is on this machine and was made for this policy (`config.head_contract`)."""
    policy = context.policy
    if context.mtp is not None and context.look_at_files:
        yield from head_problems(
            context.mtp,
            policy,
            context.max_len,
            policy_config=context.model_config,
            drafts=context.trains_policy and context.mtp.rollout.speculate,
        )


def head_training(context: JobContext) -> Iterator[Problem]:
    """Settings of the head's training that cannot do what they seem to ask."""
    if context.mtp is None:
        return
    pretrain = context.mtp.pretrain
    if pretrain.needs_warm_head and pretrain.kl_warmup_steps == 0:
        yield warning(
            "mtp.pretrain.kl_warmup_steps",
            0,
            f"some KL steps before {pretrain.objective_text}: a cold head overlaps the policy too little to learn "
            "from it",
            "leave it out for half of the steps, or set what you need",
        )
    warmup = pretrain.kl_warmup_steps
    if pretrain.max_steps is not None and warmup is not None and warmup >= pretrain.max_steps:
        yield warning(
            "mtp.pretrain.kl_warmup_steps",
            warmup,
            f"less than mtp.pretrain.max_steps = {pretrain.max_steps}, or {pretrain.objective_text} is never used",
            "lower it or raise max_steps",
        )
    temperature = context.real("rollout.temperature")
    if pretrain.temperature is not None and pretrain.temperature != temperature:
        yield warning(
            "mtp.pretrain.temperature",
            pretrain.temperature,
            f"the temperature drafts meet during RL, rollout.temperature = {temperature:g}",
            "leave it out",
        )
