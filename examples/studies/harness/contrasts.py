"""The contrasts of a study: tests over pairs of seeds, adjusted within a study, and a verdict in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.statistics import compared, holm
from harness.study import Column, Contrast, Values

LEVEL = 0.05

ROLES = {"primary": "**primary**", "secondary": "", "aa": "A/A"}


def compare_all(
    contrasts: Sequence[Contrast], values: Mapping[str, Sequence[Values]]
) -> list[dict[str, Any]]:
    """Every contrast whose arms were measured, as the result holds it.

    Args:
        contrasts: of the study, in its order.
        values: what was measured, by arm, a dictionary a seed.

    Returns:
        For each the contrast's own fields; `mean`, `low`, `high`, `p`, `detectable`, `p_equivalent` of
        `statistics.Comparison`; `p_holm`, adjusted within its role; and `verdict`.
    """
    found = [
        asdict(each) | asdict(_compare(each, values))
        for each in contrasts
        if all(each.name in values.get(arm, [{}])[0] for arm in (each.arm, each.against))
    ]
    for role in ROLES:
        family = [each for each in found if each["role"] == role and each["p"] is not None]
        p_values = [each["p"] for each in family]
        for each, adjusted in zip(family, p_values if role == "aa" else holm(p_values), strict=True):
            each["p_holm"] = adjusted
    return [{"p_holm": None, **each, "verdict": verdict({"p_holm": None, **each})} for each in found]


def _compare(contrast: Contrast, values: Mapping[str, Sequence[Values]]) -> Any:
    arm, against = ([run[contrast.name] for run in values[arm]] for arm in (contrast.arm, contrast.against))
    return compared(arm, against, ratio=contrast.ratio, least=contrast.least)


def verdict(each: Mapping[str, Any]) -> str:
    """A compared contrast in words."""
    if each["p_holm"] is None:
        return "one seed: no test"
    differs = each["p_holm"] < LEVEL
    small = each["p_equivalent"] is not None and each["p_equivalent"] < LEVEL
    bound = f"within ±{each['least']:g}" if small else ""
    if each["role"] == "aa":
        return "differs: look for a cause" if differs else f"no difference {bound}".strip()
    if not differs:
        return f"equivalent, {bound}" if small else "undecided"
    sign = "+" if each["mean"] > (1.0 if each["ratio"] else 0.0) else "-"
    word = {None: "differs", sign: "as expected"}.get(each["expected"], "opposite to the expected sign")
    return f"{word}, but {bound}" if small else word


def contrast_lines(results: Sequence[Mapping[str, Any]], columns: Mapping[str, Column]) -> list[str]:
    """The contrasts as lines of a Markdown table."""
    heads = ("compared seed by seed", "", "p (Holm)", "detectable", "verdict")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for each in results:
        column = columns[each["name"]]
        role = f"{ROLES[each['role']]} " if ROLES[each["role"]] else ""
        expected = f" (expected {each['expected'].replace('-', '−')})" if each["expected"] else ""
        what = f"{role}{column.heading}: {each['arm']} {'/' if each['ratio'] else '−'} {each['against']}{expected}"
        p = "–" if each["p_holm"] is None else f"{each['p_holm']:.3f}"
        seen = "–" if each["detectable"] is None else f"±{each['detectable']:.{column.digits}f}"
        shown = cell(each, column.digits, sign="" if each["ratio"] else "+")
        lines.append(f"| {what} | {shown} | {p} | {seen} | {each['verdict']} |")
    lines += [
        "",
        "Intervals 95 %, paired by seed. p: two-sided t-test, by Holm's method within primary and within secondary "
        "contrasts. Detectable: the true difference that as many seeds with this spread show in four of five repeats.",
    ]
    return lines


def arm_lines(summary: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> list[str]:
    """Markdown: a line an arm with its mean and interval in each column; a dash for what it does not have."""
    lines = [
        "| arm | " + " | ".join(column.heading for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for arm, measured in summary.items():
        cells = [
            cell(measured[column.name], column.digits) if column.name in measured else "–"
            for column in columns
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def cell(value: Mapping[str, Any], digits: int, sign: str = "") -> str:
    """A mean with its interval, if it has one."""
    if value["low"] is None:
        return f"{value['mean']:{sign}.{digits}f}"
    mean, low, high = (f"{value[part]:{sign}.{digits}f}" for part in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
