"""Heads that vLLM's own draft model runs: the modes in which nobody has run them."""

from collections.abc import Iterator

from openrlhf_mtp.config.families import RL_FAMILIES
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error
from openrlhf_mtp.config.reading.values import shown


def modes(context: JobContext) -> Iterator[Problem]:
    """A policy with a head of its own is trained by RL as the tests have run it (docs/formats.md)."""
    config, mtp = context.model_config, context.mtp
    family = None if config is None else RL_FAMILIES.get(str(config.get("model_type")))
    if mtp is None or family is None or not family.drafts_natively or not context.trains_policy:
        return
    for setting, given, works in (
        ("vllm.tensor_parallel_size", context.number("vllm.tensor_parallel_size"), 1),
        ("ds.lora.rank", context.lora_rank, 0),
        ("train.async_enable", context.on("train.async_enable"), False),
        ("mtp.regime", mtp.regime, "detach" if mtp.is_joint else mtp.regime),
    ):
        if given != works:
            expected = works if isinstance(works, str) else shown(works)
            yield error(
                setting,
                given,
                f"{expected} for {family.model_type}: its head is drafted by vLLM's own draft model, which was not run "
                "in this mode",
                f"set {expected}",
            )
