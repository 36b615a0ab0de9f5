"""Branches and loops, which may run or not, and what a variable is after them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from openrlhf_mtp.config.convert.expansion import Environment, Field, Known, Unknown


@dataclass
class Frame:
    """An open branch, loop, subshell or group.

    Attributes:
        kind: the word that opened it.
        before: the variables there.
        line: where.
        touched: names set inside so far.
        ends: the values that each of them had at the end of a branch.
    """

    kind: str
    before: Environment
    line: int
    touched: set[str] = field(default_factory=set)
    ends: dict[str, list[Known | Unknown]] = field(default_factory=dict)

    def close_branch(self, values: Mapping[str, Known | Unknown]) -> None:
        """Remember what the branch made of the variables."""
        for name in self.touched & values.keys():
            self.ends.setdefault(name, []).append(values[name])


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
