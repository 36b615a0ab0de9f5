"""A reward's `extra_logs` on their way to the trainer: one number a key and response, the same keys in every response.

OpenRLHF batches them like rewards. A text, a list, or a key that only some responses have ends its run in the replay
buffer with an error that names neither the reward function nor the key. A log is not worth a run: such an entry is left
out, and said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from openrlhf_mtp.runlog.scalars import shortened, single_number

OWN_KEYS = frozenset({"reward", "score", "response_clip_ratio"})
"""What OpenRLHF itself puts beside the extra logs of a response; an extra log of that name would replace it."""


def usable(extra_logs: Any) -> tuple[dict[str, float], dict[str, str]]:
    """The entries that can be logged, and by key why the others cannot."""
    if not extra_logs:
        return {}, {}
    if not isinstance(extra_logs, Mapping):
        return {}, {"": f"extra_logs is {shortened(extra_logs)}, expected a dictionary of numbers"}
    kept: dict[str, float] = {}
    problems: dict[str, str] = {}
    for key, value in extra_logs.items():
        number = single_number(value)
        if key in OWN_KEYS:
            problems[key] = f"extra_logs[{key!r}] has a name that OpenRLHF uses itself, expected another"
        elif number is None or not math.isfinite(number):
            problems[key] = f"extra_logs[{key!r}] is {shortened(value)}, expected one finite number"
        else:
            kept[str(key)] = number
    return kept, problems


def drop_uneven(infos: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Remove, in place, every key that not all dictionaries of a batch have; by key, how many had it."""
    everywhere = set(infos[0]).intersection(*infos[1:]) if infos else set()
    problems: dict[str, str] = {}
    for key in {key for info in infos for key in info} - everywhere:
        having = sum(info.pop(key, None) is not None for info in infos)
        problems[key] = (
            f"extra_logs[{key!r}] came with {having} of {len(infos)} responses, expected with all of them"
        )
    return problems
