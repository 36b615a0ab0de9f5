"""What draws the figures of a head inside RL: whether trainer and engines agree, and what OCC makes of it."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.drawing import Groups, color, curve, depth_color
from openrlhf_mtp.analysis.groups import Group
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.agreement import gap_limit, is_walked, with_gap

OCC_PANELS = (
    (metrics.MTP_COEFFICIENT, "Coefficient of the MTP loss", "factor"),
    (metrics.OCC_ALIGNMENT, "Alignment, mean of δ_RL · δ_MTP", "nat²"),
    (metrics.OCC_MAGNITUDE, "Magnitude, mean of δ_MTP²", "nat²"),
)


def agreement(groups: Groups) -> Figure | None:
    """Drafts accepted through each depth, promised (dashed) and measured, and the gap with the limit of a warning."""
    shown = [group for group in groups if group.has(metrics.SPEC_ALPHA_GAP)]
    if not shown:
        return None
    depths = shown[0].depths(metrics.MTP_REACH) if len(shown) == 1 else 0
    figure, axes = style.panels(2 if depths else 1)
    for j in range(1, depths + 1):
        curve(
            axes[0],
            shown[0],
            metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, j),
            depth_color(j),
            f"depth {j}",
        )
        promised = metrics.depth_metric(metrics.MTP_REACH, j)
        curve(axes[0], shown[0], promised, style.INK, "promised", ":")
    if depths:
        style.label(axes[0], "Accepted through each depth", "fraction of drafts")
        style.unit_interval(axes[0])
    for number, group in enumerate(shown):
        curve(
            axes[-1], group, metrics.SPEC_ALPHA_GAP, color(number), group.label if len(shown) > 1 else "gap"
        )
        _limits(figure, group, color(number) if len(shown) > 1 else style.BROKEN)
    style.zero(axes[-1])
    style.label(axes[-1], "Promised minus measured", "share of drafted tokens")
    for panel in axes:
        style.legend(panel)
    return figure


def _limits(figure: Figure, group: Group, shade: str) -> None:
    rows = with_gap(group.mean_rows())
    steps = [row[metrics.STEP] for row in rows]
    limits = [gap_limit(row) for row in rows]
    kind = "limit" if rows and is_walked(rows[-1]) else "limit (rough promise)"
    for sign in (1.0, -1.0):
        figure.axes[-1].plot(
            steps, [sign * limit for limit in limits], ":", color=shade, linewidth=1.0, label=kind
        )


def occ(groups: Groups) -> Figure | None:
    """The coefficient and the two terms whose ratio it is, by depth."""
    shown = [group for group in groups if _is_joint(group)]
    if not shown:
        return None
    panels = [one for one in OCC_PANELS if any(_has(group, one[0]) for group in shown)]
    figure, axes = style.panels(len(panels))
    for panel, (base, title, unit) in zip(axes, panels, strict=True):
        for number, group in enumerate(shown):
            depths = group.depths(base)
            for j in range(1, depths + 1) if len(shown) == 1 else range(1, min(depths, 1) + 1):
                shade, name = (
                    (depth_color(j), f"depth {j}") if len(shown) == 1 else (color(number), group.label)
                )
                curve(panel, group, metrics.depth_metric(base, j), shade, name)
            if not depths:
                curve(panel, group, base, color(number), group.label)
        style.zero(panel)
        style.label(panel, title if len(shown) == 1 else f"{title}, depth 1", unit)
        style.legend(panel)
    return figure


def _has(group: Group, base: str) -> bool:
    return group.has(base, metrics.depth_metric(base, 1))


def _is_joint(group: Group) -> bool:
    """Whether the MTP loss reached the policy at any step, or OCC's terms were measured."""
    names = (metrics.MTP_COEFFICIENT, metrics.depth_metric(metrics.MTP_COEFFICIENT, 1))
    joint = any(value != 0.0 for name in names for value in group.band(name).mean)
    return joint or group.has(metrics.depth_metric(metrics.OCC_ALIGNMENT, 1))
