"""A table of a report, and how its numbers are written."""

import math
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
    """A mean and half its 95 % interval, which is left out when there is none; a dash without a mean."""
    if mean is None:
        return "–"
    if not math.isfinite(mean.half_width):
        return number(mean.value)
    return f"{number(mean.value)} ± {mean.half_width:.2g}"


def signed(value: float, half_width: float = math.nan) -> str:
    """A difference with its sign and, if known, half its 95 % interval."""
    if not math.isfinite(value):
        return "–"
    return f"{value:+.3f}" + (f" ± {half_width:.3f}" if math.isfinite(half_width) else "")


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader can grasp."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
