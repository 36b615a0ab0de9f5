"""The description of a figure of a report."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.analysis.table import Table


@dataclass(frozen=True)
class FigureSpec:
    """A figure of the report.

    Attributes:
        name: of its file, `figures/NAME.png`.
        title, caption: its texts.
        needs: what it is drawn from, one of these at least: names of metrics, or `records/*.npz`. The report says it in
            the place of a figure that no run has the data for.
        draw: makes it from groups of runs; None when none has what it needs.
        table: makes the numbers beside it, if it has any.
    """

    name: str
    title: str
    caption: str
    needs: tuple[str, ...]
    draw: Callable[[Groups], Figure | None]
    table: Callable[[Groups], Table | None] | None = None
