"""How the engines are tuned: arguments of vLLM, scheduling, and how often log-probs are asked for."""

from collections.abc import Iterator

from openrlhf_mtp.config.engine_args import owned
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error


def engine_args(context: JobContext) -> Iterator[Problem]:
    """Arguments that the job sets elsewhere. Names and types are vLLM's (`rollout.engine_args`)."""
    if context.mtp is not None:
        yield from owned(context.mtp.rollout.engine_args)


def logprobs(context: JobContext) -> Iterator[Problem]:
    """Importance-sampling correction divides by the engines' probability of every token."""
    level = context.text("algo.advantage.is_correction_level")
    if context.mtp is not None and context.mtp.rollout.logprobs == "sampled" and level != "off":
        yield error(
            "mtp.rollout.logprobs",
            "sampled",
            f"auto or always with algo.advantage.is_correction_level {level}, which needs every token's log-prob",
            "set auto",
        )


def async_scheduling(context: JobContext) -> Iterator[Problem]:
    """vLLM's CPU platform always switches it off, without a word."""
    if context.mtp is not None and context.mtp.rollout.async_scheduling and not context.host.has_cuda:
        yield error(
            "mtp.rollout.async_scheduling",
            "true",
            "false or nothing on a host without CUDA, where vLLM has no such scheduling",
            "leave it out",
        )
