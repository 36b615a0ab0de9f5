"""The head as its trainer sees it: loss, overlap with the policy, expected length."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.runlog import metrics


def draw(groups: Groups) -> Figure | None:
    """Draw loss, overlap per depth and expected length over steps; held-out values as dashed lines."""
    shown = [group for group in groups if group.has(metrics.MTP_LOSS)]
    if not shown:
        return None
    figure, axes = style.panels(3)
    depths = max(group.depths(metrics.MTP_ALPHA) for group in shown)
    single = len(shown) == 1
    for number, group in enumerate(shown):
        own = style.group_color(number)
        for panel, name in ((axes[0], metrics.MTP_LOSS), (axes[2], metrics.MTP_EXPECTED_LENGTH)):
            style.curve(panel, group, name, own, group.label)
            style.curve(panel, group, metrics.held_out(name), own, "held-out", "--")
        for j in range(1, depths + 1) if single else sorted({1, depths}):
            name = metrics.depth_metric(metrics.MTP_ALPHA, j)
            shade, label = (
                (style.depth_color(j), f"depth {j}") if single else (own, f"{group.label}, depth {j}")
            )
            style.curve(axes[1], group, name, shade, label, "-" if single or j == 1 else "-.")
            style.curve(axes[1], group, metrics.held_out(name), shade, "held-out", "--")
    style.label(axes[0], "Loss of the head", "loss")
    style.scale(axes[0], [value for group in shown for value in group.band(metrics.MTP_LOSS).high], "loss")
    style.label(axes[1], "Overlap with the policy", "probability")
    style.label(axes[2], "Expected length", "tokens per target forward")
    style.unit_interval(axes[1])
    style.lengths(axes[2], depths)
    for panel in axes:
        style.legend(panel)
    return figure


FIGURE = FigureSpec(
    "head",
    "The head in training",
    "Loss and overlap of the head with the policy, measured by the trainer.",
    (metrics.MTP_LOSS,),
    draw,
)
