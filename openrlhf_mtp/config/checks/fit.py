"""Whether a head can draft for a policy, by the `config.json` of both.

`check` asks before anything starts and the engines ask again before they load the head: one rule, in one place.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.checks.problem import Problem, error
from openrlhf_mtp.config.rope import angles
from openrlhf_mtp.config.settings.mtp import MTPSettings

DRAFT_ARCHITECTURE = "EagleMTPDraft"
"""What a head's `config.json` has as its only architecture."""

WIDTHS = ("hidden_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")

Config = Mapping[str, Any]


def misfits(policy: Config | None, head: Config, mtp: MTPSettings, folder: Path) -> Iterator[Problem]:
    """Everything that forbids drafting; `folder` is the head's, for the messages. A policy of None is not at hand."""
    own = head.get("mtp")
    if not isinstance(own, Mapping) or head.get("architectures") != [DRAFT_ARCHITECTURE]:
        yield error(
            "mtp.head",
            folder,
            f"a head written by openrlhf-mtp equip, whose config.json has the architecture {DRAFT_ARCHITECTURE} and an "
            "mtp entry",
            "make one with openrlhf-mtp equip, or give its folder as mtp.head",
        )
        return
    different = [] if policy is None else list(_differences(policy, head, own))
    if different:
        yield error(
            "mtp.head",
            folder,
            f"a head made for this policy; {', '.join(different)}",
            "equip this policy with a head of its own (openrlhf-mtp equip)",
        )
    blocks = own.get("num_layers")
    if blocks != mtp.num_layers:
        fix = f"set {blocks}"
        yield error("mtp.num_layers", mtp.num_layers, f"the head's own number of blocks, {blocks}", fix)


def _differences(policy: Config, head: Config, own: Config) -> Iterator[str]:
    family = own.get("trunk_model_type", head.get("model_type"))
    yield from _different("model_type", family, policy.get("model_type"))
    for name in WIDTHS:
        if name in head and name in policy:
            yield from _different(name, head[name], policy[name])
    yield from _different_angles(head, policy)


def _different(name: str, head: object, policy: object) -> Iterator[str]:
    if head != policy:
        yield f"{name} {head} against the policy's {policy}"


def _different_angles(head: Config, policy: Config) -> Iterator[str]:
    """Rotary positions that turn otherwise: a policy that was stretched to a longer context after it was equipped.

    A kind of layer that only one of the two has does not count, nor has a value that only one of them writes out.
    """
    ours, theirs = angles(head), angles(policy)
    for kind in ours.keys() & theirs.keys():
        for name in sorted(ours[kind].keys() & theirs[kind].keys()):
            yield from _different(name, ours[kind][name], theirs[kind][name])
