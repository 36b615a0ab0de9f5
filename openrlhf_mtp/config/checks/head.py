"""The head: its folder, that it belongs to this policy, and how it is trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.checks.conflict import Conflict, error, warning
from openrlhf_mtp.config.model_files import read_json
from openrlhf_mtp.config.mtp import MTPSettings
from openrlhf_mtp.config.situation import Situation

HEAD_FILES = ("config.json", "model.safetensors")
WIDTHS = ("hidden_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")


def head_files(s: Situation) -> Iterator[Conflict]:
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
    own = config.get("mtp")
    if not isinstance(own, dict):
        yield error(
            "mtp.head", folder, "a head made by openrlhf-mtp equip (no mtp entry in its config.json)", "equip"
        )
        return
    yield from _same_policy(s, folder, config, own)
    yield from _depths(s.mtp, own)


def head_training(s: Situation) -> Iterator[Conflict]:
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


def _same_policy(
    s: Situation, folder: Path, config: dict[str, Any], own: dict[str, Any]
) -> Iterator[Conflict]:
    policy = s.model_config
    if policy is None:
        return
    family = own.get("trunk_model_type", config.get("model_type"))
    pairs = [("model_type", family, policy.get("model_type"))]
    pairs += [
        (name, config.get(name), policy.get(name)) for name in WIDTHS if name in config and name in policy
    ]
    different = [
        f"{name} {head} against the policy's {trunk}" for name, head, trunk in pairs if head != trunk
    ]
    if different:
        fix = "equip this policy with a head of its own (openrlhf-mtp equip)"
        yield error("mtp.head", folder, f"a head made for this policy; {', '.join(different)}", fix)


def _depths(mtp: MTPSettings, own: dict[str, Any]) -> Iterator[Conflict]:
    blocks, depths = own.get("num_layers"), own.get("depths")
    if blocks != mtp.num_layers:
        yield error(
            "mtp.num_layers", mtp.num_layers, f"the head's own number of blocks, {blocks}", f"set {blocks}"
        )
    if isinstance(depths, int) and mtp.depths > depths:
        yield warning(
            "mtp.depths",
            mtp.depths,
            f"at most {depths}, which the head was made for; deeper drafts start untrained",
            f"set {depths}, or pretrain at the new depth",
        )
