"""A table of a report, and how its numbers are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_mtp.analysis.regression import Mean


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as the header; the first column is text. `note` says what a reader must know."""

    header: list[str]
    rows: list[list[str]]
    note: str = ""


def number(value: float) -> str:
    """Three significant digits, without an exponent where a reader would have to count zeros."""
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", " ")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")


def with_interval(mean: Mean | None) -> str:
    """A mean and half its 95 % interval to the same digit; without an interval if there is none, a dash without a mean.

    >>> with_interval(Mean(0.51234, 0.0123, 3, 3))
    '0.512 ± 0.012'
    """
    if mean is None:
        return "–"
    if (
        not math.isfinite(mean.half_width)
        or mean.half_width < 1e-12 * abs(mean.value)
        or mean.half_width == 0
    ):
        return number(mean.value)
    digits = max(0, 1 - math.floor(math.log10(mean.half_width)))
    return f"{mean.value:,.{digits}f} ± {mean.half_width:,.{digits}f}".replace(",", " ")


def signed(value: float, half_width: float = math.nan) -> str:
    """A difference with its sign and, if known, half its 95 % interval."""
    if not math.isfinite(value):
        return "–"
    shown = round(value, 3) + 0.0  # no -0.000
    return f"{shown:+.3f}" + (f" ± {half_width:.3f}" if math.isfinite(half_width) else "")


def ranges(steps: Sequence[int]) -> str:
    """Ascending numbers, neighbors put together.

    >>> ranges([3, 4, 5, 9])
    '3–5, 9'
    """
    pieces: list[list[int]] = []
    for step in steps:
        if pieces and step == pieces[-1][-1] + 1:
            pieces[-1].append(step)
        else:
            pieces.append([step])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in pieces)


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader can grasp."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
