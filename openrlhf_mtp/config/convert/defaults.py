"""Defaults of OpenRLHF that are others today, for scripts that left a flag out and relied on the old one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from openrlhf_mtp.config.reading.old_names import LAST_OLD, Version, old_names


@dataclass(frozen=True)
class Changed:
    """A default that OpenRLHF has changed.

    Attributes:
        name: today's flag.
        before: how to set what was the default before, as `key: value`.
        until: the last release with the old default.
        what: what it changes.
        only_if: the role or feature without which nobody notices: `critic`, `correction` or "".
        old: names of earlier flags that set the same.
    """

    name: str
    before: str
    until: Version
    what: str
    only_if: str = ""
    old: tuple[str, ...] = ()


CHANGED = (
    Changed(
        "actor.loss_agg_mode",
        "actor.loss_agg_mode: seq-mean-token-mean",
        (0, 6, 4),
        "every sequence weighed the same in the policy loss, now every token does",
    ),
    Changed(
        "algo.advantage.lambd", "algo.advantage.lambd: 0.95", (0, 6, 3), "GAE's lambda is 1 now", "critic"
    ),
    Changed(
        "critic.value_clip", "critic.value_clip: 0.2", (0, 8, 1), "the value loss clips at 0.5 now", "critic"
    ),
    Changed(
        "ds.param_dtype",
        "nothing, OpenRLHF has it no more",
        (0, 9, 1),
        "without --bf16 it trained in the checkpoint's own precision, now in bfloat16",
        old=("bf16",),
    ),
    Changed(
        "ds.attn_implementation",
        "ds.attn_implementation: eager",
        (0, 8, 9),
        "without --flash_attn attention was plain, now it is flash_attention_2",
        old=("flash_attn", "packing_samples"),
    ),
    Changed(
        "algo.advantage.is_correction_threshold",
        "algo.advantage.is_correction_threshold: [2]",
        (0, 9, 0),
        "the correction's bound was 2 from above alone, now 0.5 to 5",
        "correction",
    ),
    Changed(
        "rollout.micro_batch_size",
        "rollout.micro_batch_size: 8",
        (0, 9, 10),
        "it is 1 now; time and memory differ",
    ),
    Changed(
        "train.micro_batch_size",
        "train.micro_batch_size: 4",
        (0, 9, 10),
        "it is 1 now; time and memory differ",
    ),
    Changed(
        "vllm.gpu_memory_utilization",
        "vllm.gpu_memory_utilization: 0.9",
        (0, 6, 3),
        "vLLM takes 0.95 of a GPU now",
    ),
)


def versions_of(names: Mapping[str, int]) -> tuple[Version, Version] | None:
    """First and last release that had all these flags, None when none of them is old or no release had them all."""
    rows = [old_names()[name] for name in names if name in old_names()]
    if not rows:
        return None
    since, until = max(row.since for row in rows), min(row.until for row in rows)
    return (since, until) if since <= until else None


def changed_defaults(
    first: Version, given: frozenset[str], old: frozenset[str], features: frozenset[str]
) -> Iterator[str]:
    """A sentence for every default that an old script may have relied on.

    Args:
        first: the earliest release that the script can be for.
        given: today's names that the job sets.
        old: the old names in the script.
        features: `critic` and `correction`, if the job has them.
    """
    for one in CHANGED:
        if first > one.until or one.name in given or old & set(one.old):
            continue
        if one.only_if and one.only_if not in features:
            continue
        until = ".".join(map(str, one.until))
        was = f"up to OpenRLHF {until} the default of {one.name} was another: {one.what}"
        yield f"{was}. To have that again: {one.before}"


def shown_versions(first: Version, last: Version) -> str:
    """`0.8.9 to 0.9.1`."""
    names = [".".join(map(str, each)) for each in (first, min(last, LAST_OLD))]
    return names[0] if names[0] == names[1] else " to ".join(names)
