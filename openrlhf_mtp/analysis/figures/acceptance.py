"""Acceptance of drafts in the rollout engines, by depth and as a length."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.runlog import metrics


def draw(groups: Groups) -> Figure | None:
    """Draw the share of drafts accepted through each depth, and tokens per target forward."""
    depths = max((group.depths(metrics.SPEC_ACCEPTANCE_RATE) for group in groups), default=0)
    if depths == 0:
        return None
    single = len(groups) == 1
    figure, axes = style.panels(2 if single else depths + 1)
    for number, group in enumerate(groups):
        own = style.group_color(number)
        for j in range(1, depths + 1):
            panel = axes[0] if single else axes[j - 1]
            shade, name = (style.depth_color(j), f"depth {j}") if single else (own, group.label)
            style.curve(panel, group, metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, j), shade, name)
            style.label(panel, "Accepted drafts by depth" if single else f"Accepted at depth {j}", "fraction")
            style.unit_interval(panel)
        style.curve(axes[-1], group, metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, own, group.label)
    style.label(axes[-1], "Mean acceptance length", "tokens per target forward")
    style.lengths(axes[-1], depths)
    for panel in axes:
        style.legend(panel)
    return figure


FIGURE = FigureSpec(
    "acceptance",
    "Acceptance",
    "Reach, the share of drafts whose token at each depth was accepted (all before it were), and tokens per target "
    "forward. The mean of the reach over depths is the acceptance rate of the table above, accepted over drafted "
    "tokens. Dotted: the most possible.",
    (metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, 1),),
    draw,
)
