"""Anything that would change the distribution rollouts are drawn from, or make drafts pointless."""

from collections.abc import Iterator

from openrlhf_mtp.config import head_contract
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, warning


def distribution(context: JobContext) -> Iterator[Problem]:
    """Rollouts follow the whole policy (`config.head_contract`)."""
    yield from head_contract.sampling_problems(context.sampling, context.mtp)


def drafts(context: JobContext) -> Iterator[Problem]:
    """Drafts are verified exactly and drawn as the head was trained for (`config.head_contract`), and made at all."""
    if context.mtp is None:
        return
    yield from head_contract.drafting_problems(context.mtp)
    yield from head_contract.caching_problems(
        context.mtp.rollout.speculate, context.model_config, context.on("vllm.enable_prefix_caching")
    )
    if not context.mtp.rollout.speculate and context.mtp.regime != "frozen":
        yield warning(
            "mtp.rollout.speculate",
            "false",
            "true: the head is trained and never used",
            "set true, or drop the mtp section for a baseline",
        )


def block_verification(context: JobContext) -> Iterator[Problem]:
    """vLLM's V2 model runner alone verifies sampled drafts as blocks, and it needs a GPU.

    An engine alone knows its runner, so that `rollout.plugin.probe` asks again.
    """
    rollout = None if context.mtp is None else context.mtp.rollout
    if rollout is None or not rollout.speculate or context.host.has_cuda:
        return
    if (rollout.rejection_sample_method, rollout.draft_sample_method) == ("block", "probabilistic"):
        yield error(
            "mtp.rollout.rejection_sample_method",
            "block with mtp.rollout.draft_sample_method probabilistic",
            "standard on a host without CUDA: vLLM's V1 model runner would draft greedily without saying so",
            "set standard",
        )
