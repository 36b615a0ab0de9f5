"""Whether a head can draft for a policy, by the `config.json` of both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.families import RL_FAMILIES
from openrlhf_mtp.config.native_layouts import LAYOUTS, Wiring
from openrlhf_mtp.config.problem import Problem, error, refuse, warning
from openrlhf_mtp.config.rope import angles, context_limit

DRAFT_ARCHITECTURE = "EagleMTPDraft"
"""The only architecture in a head's `config.json`: our draft class in vLLM, which insists on the prefix "Eagle"."""

FORMAT = 1
"""Version of the head's folder."""

WIDTHS = ("hidden_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")
"""Sizes that a head shares with its policy."""

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """The shape a job wants of its head.

    Attributes:
        blocks: MTP blocks: `num_blocks` of the job, `num_layers` of a head's `config.json` (format 1 keeps
            that key).
        depths: tokens drafted per target forward.
        max_len: longest sequence in tokens, None when no limit is known.
        drafts: rollouts draft with it; false for a head that is trained alone.
    """

    blocks: int
    depths: int
    max_len: int | None = None
    drafts: bool = True


def misfits(policy: Config | None, head: Config, wanted: Wanted, folder: Path) -> Iterator[Problem]:
    """Everything that forbids drafting with a head, and depths it was not made for.

    Args:
        policy: the policy's `config.json`; None is not compared.
        head: the head's `config.json`.
        wanted: the shape that the job asks for.
        folder: the head's folder, for the messages.
    """
    reason = not_a_head(head)
    if reason is not None:
        yield refuse("mtp.head", f"{folder}: {reason}")
        return
    own = head["mtp"]
    different = [] if policy is None else list(differences(policy, head))
    if different:
        yield refuse(
            "mtp.head",
            f"the head in {folder} does not fit the policy ({'; '.join(different)}); equip this policy with a head of "
            "its own (openrlhf-mtp equip)",
        )
    family = RL_FAMILIES.get(own["trunk_model_type"])
    if family is None and wanted.drafts:
        yield refuse(
            "mtp.head",
            f"the head in {folder} is of the family {own['trunk_model_type']}, whose weights cannot be sent to engines "
            "yet; set mtp.rollout.speculate false, or export the head with openrlhf-mtp export --format native",
        )
    elif family is not None and family.drafts_natively and wanted.drafts and policy is not None:
        yield from _draft_of_the_policy(policy, own)
    wrong = None if policy is None else wrong_architecture(_architectures(policy), own.get("layout"))
    if wrong is not None and wanted.drafts:
        yield refuse("actor.model_name_or_path", wrong)
    if own["num_layers"] != wanted.blocks:
        yield error(
            "mtp.num_blocks",
            wanted.blocks,
            f"the head's own number of blocks, {own['num_layers']}",
            f"set {own['num_layers']}",
        )
    if wanted.depths > own["depths"]:
        yield warning(
            "mtp.depths",
            wanted.depths,
            f"at most {own['depths']}, which the head was made for; deeper drafts start untrained",
            f"set {own['depths']}, or pretrain at the new depth",
        )
    yield from _context(head, wanted.max_len, folder)


def not_a_head(config: Config) -> str | None:
    """Why a `config.json` is not one of a head that this version reads, None if it is."""
    own = config.get("mtp")
    if not isinstance(own, Mapping) or config.get("architectures") != [DRAFT_ARCHITECTURE]:
        return (
            f"this is not a head: a head's config.json has the architecture {DRAFT_ARCHITECTURE} and an mtp entry, and "
            f"this one has {config.get('architectures')} and {'no' if own is None else 'an'} mtp entry; make a head "
            "with openrlhf-mtp equip, or point mtp.head at the head's folder, not at the policy's"
        )
    if own.get("format") != FORMAT:
        return f"got head format {own.get('format')}, expected {FORMAT}; equip the model again"
    if own.get("layout") not in (None, *LAYOUTS):
        return (
            f"layout: got {own['layout']!r}, expected one of {', '.join(LAYOUTS)}; this head was written by another "
            "version of this package"
        )
    unfit = [name for name in ("depths", "num_layers") if not _is_count(own.get(name))]
    if unfit or not isinstance(own.get("trunk_model_type"), str):
        absent = ", ".join([*unfit, *["trunk_model_type"] * ("trunk_model_type" not in own)])
        return f"the mtp entry of its config.json is damaged ({absent}); equip the model again"
    return None


def differences(policy: Config, head: Config) -> Iterator[str]:
    """The differences between a head and a policy: family, a size, or the rotary positions; one line each.

    Args:
        policy: the policy's configuration.
        head: a configuration for which `not_a_head` has no objection.
    """
    yield from _different("model_type", head["mtp"]["trunk_model_type"], policy.get("model_type"))
    for name in WIDTHS:
        if head.get(name) is not None and policy.get(name) is not None:
            yield from _different(name, head[name], policy[name])
    yield from _different_angles(head, policy)


def wiring_of(layout: str | None) -> Wiring:
    """The wiring of the chain of a head with this layout; None is a head of our own."""
    return Wiring() if layout is None else LAYOUTS[layout].wiring


def wrong_architecture(architectures: Sequence[str] | None, layout: str | None) -> str | None:
    """Why the policy's class in vLLM does not hand over the hidden states that a head reads, None if it does.

    Args:
        architectures: of the policy's `config.json`; None is not judged.
        layout: the head's native layout, None for a head of our own.
    """
    unnormed = [one.architecture for one in LAYOUTS.values() if one.wiring.reads_unnormed]
    reads_unnormed = wiring_of(layout).reads_unnormed
    if architectures is None or reads_unnormed == any(one in unnormed for one in architectures):
        return None
    side = "before" if reads_unnormed else "after"
    expected = "one of" if reads_unnormed else "any but"
    return (
        f"architectures: got {architectures} in the policy's config.json, expected {expected} "
        f"{unnormed}: this head reads hidden states {side} the final norm, and vLLM's class "
        "decides what the policy hands over; `openrlhf-mtp export --format merged` writes the two so that they fit"
    )


def _draft_of_the_policy(policy: Config, own: Mapping[str, Any]) -> Iterator[Problem]:
    """vLLM makes its own draft model by the policy's configuration, which must say how many blocks there are."""
    layout = LAYOUTS.get(own.get("layout", ""))
    if layout is None:
        yield refuse(
            "mtp.head",
            f"the head has no native layout, which vLLM's own draft model of {own['trunk_model_type']} needs; equip "
            "the checkpoint that brings it along again",
        )
        return
    field = layout.count_field
    if policy.get(field) != own["num_layers"]:
        yield refuse(
            "actor.model_name_or_path",
            f"its config.json has {field} {policy.get(field)}, expected {own['num_layers']}: vLLM builds the draft "
            "model by it; set it there",
        )


def _architectures(policy: Config) -> list[str] | None:
    listed = policy.get("architectures")
    return listed if isinstance(listed, list) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _different(name: str, head: object, policy: object) -> Iterator[str]:
    if head != policy:
        yield f"{name}: the head has {head}, the policy {policy}"


def _different_angles(head: Config, policy: Config) -> Iterator[str]:
    """Rotary positions that turn otherwise: a policy that was stretched to a longer context after it was equipped.

    A kind of layer that only one of the two has does not count, nor has a value that only one of them writes out.
    """
    ours, theirs = angles(head), angles(policy)
    for kind in ours.keys() & theirs.keys():
        for name in sorted(ours[kind].keys() & theirs[kind].keys()):
            yield from _different(name, ours[kind][name], theirs[kind][name])


def _context(head: Config, max_len: int | None, folder: Path) -> Iterator[Problem]:
    """vLLM stops drafting for the whole batch while one sequence is longer than the head's context."""
    limit = context_limit(head)
    if limit is not None and max_len is not None and limit < max_len:
        yield refuse(
            "mtp.head",
            f"the head in {folder} has a context of {limit} tokens, and data.max_len is {max_len}: vLLM would draft "
            "nothing for any sequence while one is longer; set max_position_embeddings in the head's config.json to "
            f"the policy's, or data.max_len to {limit}",
        )
