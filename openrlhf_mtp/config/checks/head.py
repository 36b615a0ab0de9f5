"""The head: its folder, that it belongs to this policy, and how it is trained."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.checks.fit import misfits
from openrlhf_mtp.config.checks.problem import Problem, error, warning
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.model_files import read_json
from openrlhf_mtp.config.rope import context_limit
from openrlhf_mtp.config.settings.mtp import MTPSettings

HEAD_FILES = ("config.json", "model.safetensors")


def head_files(s: JobContext) -> Iterator[Problem]:
    """The head is on this machine and was made for this policy; sizes are compared, tensors are not read."""
    folder = s.head_folder
    if s.mtp is None or folder is None or not s.look_at_files:
        return
    missing = [name for name in HEAD_FILES if not (folder / name).is_file()]
    if missing:
        fix = "make one with openrlhf-mtp equip, or give its folder as mtp.head"
        yield error("mtp.head", folder, f"a head's folder; {', '.join(missing)} is not there", fix)
        return
    config = read_json(folder / "config.json")
    found = list(misfits(s.model_config, config, s.mtp, folder))
    yield from found
    if not found:
        yield from _depths(s.mtp, config["mtp"])
        yield from _positions(s, folder, config)


def head_training(s: JobContext) -> Iterator[Problem]:
    """Settings of the head's training that cannot do what they seem to ask."""
    if s.mtp is None:
        return
    pretrain = s.mtp.pretrain
    if {"tv", "e2e_tv"} & set(pretrain.objectives) and pretrain.kl_warmup_steps == 0:
        yield warning(
            "mtp.pretrain.kl_warmup_steps",
            0,
            f"some KL steps before {pretrain.objective_text}: a cold head overlaps the policy too little to learn "
            "from it",
            "set it to 50 if the head is fresh",
        )
    if pretrain.max_steps is not None and pretrain.kl_warmup_steps >= pretrain.max_steps:
        yield warning(
            "mtp.pretrain.kl_warmup_steps",
            pretrain.kl_warmup_steps,
            f"less than mtp.pretrain.max_steps = {pretrain.max_steps}, or {pretrain.objective_text} is never used",
            "lower it or raise max_steps",
        )
    temperature = s.real("rollout.temperature")
    if pretrain.temperature is not None and pretrain.temperature != temperature:
        yield warning(
            "mtp.pretrain.temperature",
            pretrain.temperature,
            f"the temperature drafts meet during RL, rollout.temperature = {temperature:g}",
            "leave it out",
        )


def _depths(mtp: MTPSettings, own: Mapping[str, Any]) -> Iterator[Problem]:
    depths = own.get("depths")
    if isinstance(depths, int) and mtp.depths > depths:
        yield warning(
            "mtp.depths",
            mtp.depths,
            f"at most {depths}, which the head was made for; deeper drafts start untrained",
            f"set {depths}, or pretrain at the new depth",
        )


def _positions(s: JobContext, folder: Path, config: Mapping[str, Any]) -> Iterator[Problem]:
    """vLLM stops drafting for the whole batch while one sequence is longer than the head's context."""
    limit, longest = context_limit(config), s.number("data.max_len")
    if limit is not None and limit < longest:
        yield error(
            "mtp.head",
            f"{folder} with a context of {limit} tokens",
            f"at least data.max_len = {longest}: vLLM would draft nothing for any sequence while one is longer",
            f"set max_position_embeddings in the head's config.json to the policy's, or data.max_len to {limit}",
        )
