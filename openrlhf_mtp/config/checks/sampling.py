"""Anything that would change the distribution rollouts are drawn from, or make drafts pointless."""

from collections.abc import Iterator

from openrlhf_mtp.config import head_contract
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, warning


def distribution(context: JobContext) -> Iterator[Problem]:
    """Rollouts follow the whole policy (`config.head_contract`)."""
    yield from head_contract.sampling_problems(context.sampling, context.mtp)


def drafts(context: JobContext) -> Iterator[Problem]:
    """Drafts are verified exactly and drawn as the head was trained for (`config.head_contract`), and made at all."""
    if context.mtp is None:
        return
    yield from head_contract.drafting_problems(context.mtp)
    if not context.mtp.rollout.speculate and context.mtp.regime != "frozen":
        yield warning(
            "mtp.rollout.speculate",
            "false",
            "true: the head is trained and never used",
            "set true, or drop the mtp section for a baseline",
        )
