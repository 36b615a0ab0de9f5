"""Muon and the moving average: combinations that end in a worker, and settings that DeepSpeed ignores."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, warning

NEWTON_SCHULZ_STEPS = 5
"""DeepSpeed 0.19.6's own, whatever the job says."""


def muon(context: JobContext) -> Iterator[Problem]:
    """DeepSpeed refuses some of Muon's settings when it makes the optimizer, and changes others silently."""
    for trained in ("actor", *(["critic"] if context.uses_critic else [])):
        if context.text(f"{trained}.optim") == "muon":
            yield from _muon(context, trained)


def _muon(context: JobContext, trained: str) -> Iterator[Problem]:
    setting = f"{trained}.optim"
    if context.zero_stage == 3:
        yield error(
            setting,
            "muon with ds.zero_stage 3",
            "adam there: OpenRLHF has ZeRO-3 scatter the gradients, and DeepSpeed's Muon needs whole matrices",
            "set ds.zero_stage 2, or adam",
        )
    elif context.on("ds.adam_offload"):
        yield error(
            setting,
            "muon with ds.adam_offload",
            "adam with it: DeepSpeed keeps slices of offloaded gradients, and its Muon needs whole matrices",
            "set ds.adam_offload false, or adam",
        )
    if (clip := context.real(f"{trained}.max_norm")) > 0:
        yield warning(
            f"{trained}.max_norm",
            clip,
            f"0 with {setting} muon: DeepSpeed clips Muon's update instead of the gradient, whose norm is about the "
            "square root of all matrices' sizes added up, so that clipping leaves a small part of each update",
            "set 0",
        )
    given = context.number(f"{trained}.muon.ns_steps")
    if given != NEWTON_SCHULZ_STEPS:
        yield warning(
            f"{trained}.muon.ns_steps",
            given,
            f"{NEWTON_SCHULZ_STEPS}, which DeepSpeed always takes",
            "drop it",
        )
    if not context.on(f"{trained}.muon.nesterov"):
        yield warning(f"{trained}.muon.nesterov", "false", "true, which DeepSpeed always takes", "drop it")


def average(context: JobContext) -> Iterator[Problem]:
    """OpenRLHF builds the averaged model without adapters, and pairs its parameters with the policy's in order."""
    if context.on("train.enable_ema") and context.lora_rank > 0:
        yield error(
            "train.enable_ema",
            "true with ds.lora.rank above 0",
            "false: the averaged model would have no adapters, which are what is trained",
            "set it false, or ds.lora.rank 0",
        )
    if context.on("train.enable_ema") and context.number("ds.tensor_parallel_size") > 1:
        yield error(
            "train.enable_ema",
            "true with ds.tensor_parallel_size above 1",
            "false: the average is kept by one rank, and no rank has the whole policy",
            "set it false, or ds.tensor_parallel_size 1",
        )
