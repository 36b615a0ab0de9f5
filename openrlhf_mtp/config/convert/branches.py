"""What a variable is after a branch or a loop that may have run or not."""

from collections.abc import Sequence
from dataclasses import replace

from openrlhf_mtp.config.convert.expansion import Field, Known, Unknown


def after_branches(
    before: Known | Unknown | None, ends: Sequence[Known | Unknown], where: str
) -> Known | Unknown:
    """The value behind it: unknown, or an array with what every branch added, each word with its condition.

    Args:
        before: the value before.
        ends: what each branch made of it.
        where: `in a branch of the script, line 7`.
    """
    kept = Known((), array=True) if before is None else before
    if not isinstance(kept, Known) or not kept.array:
        return Unknown(f"is set {where}")
    added: list[Field] = []
    for end in ends:
        if not isinstance(end, Known) or not end.array or end.fields[: len(kept.fields)] != kept.fields:
            return Unknown(f"is set {where}")
        added += [
            each if each.when else replace(each, when=f"is added {where}")
            for each in end.fields[len(kept.fields) :]
        ]
    return Known((*kept.fields, *added), array=True)
