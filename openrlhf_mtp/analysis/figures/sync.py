"""Seconds of a synchronization round."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.runlog import metrics


def draw(groups: Groups) -> Figure | None:
    """Draw the round's time over steps, and the share of it that verification took."""
    figure = style.over_steps(groups, (metrics.TIME_SYNC_S, "Synchronization", "s"))
    if figure is not None:
        for number, group in enumerate(groups):
            name = "verification" if len(groups) == 1 else f"{group.label}, verification"
            style.curve(figure.axes[0], group, metrics.SYNC_VERIFY_S, style.group_color(number), name, "--")
        style.legend(figure.axes[0])
    return figure


FIGURE = FigureSpec(
    "sync",
    "Weight synchronization",
    "Time of the round that brings policy and head to every engine, and checks them there.",
    (metrics.TIME_SYNC_S,),
    draw,
)
