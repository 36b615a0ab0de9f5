"""Checks that a checkpoint fits the job that resumes it: whole, as many ranks, the same prompts."""

from collections.abc import Iterator

from openrlhf_mtp.config.checkpoints import ACTOR, CRITIC, Checkpoint, all_of, resume_point
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.job import load_job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem, error, refuse, warn
from openrlhf_mtp.config.run_files import RUN_YAML

DATA = ("data.prompt_dataset", "data.prompt_probs", "data.prompt_split", "data.max_samples")
"""The settings that a position in the prompts depends on."""

_NEW_RUN = (
    "or start a new run from an exported policy (actor.model_name_or_path and mtp.head: final/ and final/mtp, or a "
    "folder that ckpt.save_hf wrote)"
)


def checkpoint(context: JobContext) -> Iterator[Problem]:
    """The newest checkpoint may have been cut off, and DeepSpeed's are tied to the number of ranks."""
    folder = context.checkpoints
    if (
        not (context.resumes and context.trains_policy and context.look_at_files)
        or folder is None
        or not all_of(folder)
    ):
        return
    point = resume_point(folder)
    if point.checkpoint is None:
        yield refuse(
            "--resume",
            f"{folder} holds no whole checkpoint ({'; '.join(point.damaged)}); restore the file, or start a new run "
            "with --overwrite",
        )
        return
    if point.damaged:
        yield warn(
            "--resume",
            f"damaged checkpoints are passed over ({'; '.join(point.damaged)}); the run continues from the newest "
            f"whole checkpoint, {point.checkpoint.tag}",
        )
    if not context.on("ds.use_universal_ckpt"):
        yield from _ranks(context, point.checkpoint)
    if context.on("train.enable_ema"):
        yield warn(
            "train.enable_ema",
            "OpenRLHF keeps the average in no checkpoint, so that a resumed run starts a new average from "
            "actor.model_name_or_path, which final/ then holds; set this false, or accept it",
        )


def _ranks(context: JobContext, saved: Checkpoint) -> Iterator[Problem]:
    shared = context.number("ds.ring_attn_size") * context.number("ds.tensor_parallel_size")
    for role, folder in (("actor", ACTOR), ("critic", CRITIC)):
        there, here = saved.ranks(folder), context.ranks(role) // shared
        if there is None or (role == "critic" and not context.uses_critic) or there == here:
            continue
        yield refuse(
            f"{role}.num_gpus_per_node",
            f"{there} rank(s) of the {role} saved {saved.tag}, and this job has {here}: DeepSpeed's optimizer states "
            f"are split over them; resume with {role}.num_nodes * {role}.num_gpus_per_node = {there * shared}, "
            f"{_NEW_RUN}",
        )
    stage = context.zero_stage
    if saved.is_sharded != (stage == 3):
        expected = "3" if saved.is_sharded else "below 3"
        yield error(
            "ds.zero_stage",
            stage,
            f"{expected}, as {saved.tag} was saved",
            f"set it back, {_NEW_RUN}",
        )


def same_prompts(context: JobContext) -> Iterator[Problem]:
    """A checkpoint holds the position in the prompts, which means nothing in others."""
    before = context.out / RUN_YAML if context.out is not None else None
    folder = context.checkpoints
    if (
        not (context.resumes and context.trains_policy and context.look_at_files)
        or before is None
        or not before.is_file()
    ):
        return
    if folder is None or not all_of(folder):
        return
    try:
        earlier = load_job(before, (), context.job.specs)
    except JobError:
        return  # a run of another version; nothing can be said
    for name in DATA:
        if earlier.value(name) != context.job.value(name):
            yield error(
                name,
                context.job.value(name),
                f"{earlier.value(name)}, as the run in {context.out} has it: its position in those prompts would be "
                "taken for one in these",
                f"set it back, {_NEW_RUN}",
            )
