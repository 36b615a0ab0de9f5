"""The factor on the MTP loss that reaches the policy, and the two terms whose ratio it is for OCC."""

import math

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Group, Groups
from openrlhf_mtp.analysis.regression import mean_of
from openrlhf_mtp.analysis.table import Table, with_interval
from openrlhf_mtp.runlog import metrics

PANELS = (
    (metrics.MTP_COEFFICIENT, "Coefficient of the MTP loss", "factor"),
    (metrics.OCC_ALIGNMENT, "Alignment, mean of δ_RL · δ_MTP", "nat²"),
    (metrics.OCC_MAGNITUDE, "Magnitude, mean of δ_MTP²", "nat²"),
)


def draw(groups: Groups) -> Figure | None:
    """Draw the coefficient and its terms over steps, by depth."""
    shown = [group for group in groups if _is_joint(group)]
    if not shown:
        return None
    panels = [one for one in PANELS if any(_has(group, one[0]) for group in shown)]
    figure, axes = style.panels(len(panels))
    single = len(shown) == 1
    for panel, (base, title, unit) in zip(axes, panels, strict=True):
        for number, group in enumerate(shown):
            own, depths = style.group_color(number), group.depths(base)
            for j in range(1, depths + 1) if single else range(1, min(depths, 1) + 1):
                shade, name = (style.depth_color(j), f"depth {j}") if single else (own, group.label)
                style.curve(panel, group, metrics.depth_metric(base, j), shade, name)
            if not depths:
                style.curve(panel, group, base, own, group.label)
        style.zero(panel)
        style.label(panel, title if single else f"{title}, depth 1", unit)
        style.legend(panel)
    return figure


def _has(group: Group, base: str) -> bool:
    return group.has(base, metrics.depth_metric(base, 1))


def _is_joint(group: Group) -> bool:
    """Whether the MTP loss reached the policy at any step, or OCC's terms were measured."""
    names = (metrics.MTP_COEFFICIENT, metrics.depth_metric(metrics.MTP_COEFFICIENT, 1))
    joint = any(value != 0.0 for name in names for value in group.band(name).mean)
    return joint or group.has(metrics.depth_metric(metrics.OCC_ALIGNMENT, 1))


def table(groups: Groups) -> Table | None:
    """List means over the run of the coefficient and its terms, and how often the alignment was below 0."""
    rows = []
    for group in groups:
        for j in range(1, group.depths(metrics.MTP_COEFFICIENT) + 1):
            name = metrics.depth_metric(metrics.MTP_COEFFICIENT, j)
            factors = [value for run in group.runs for value in run.series(name)[1] if math.isfinite(value)]
            if any(factors):
                terms = [_mean_over_runs(group, metrics.depth_metric(base, j)) for base, _, _ in PANELS]
                rows.append([group.label, f"depth {j}", *terms, _below_zero(group, j)])
    header = ["run", "depth", "coefficient", "alignment", "magnitude", "updates with alignment below 0"]
    note = "Means over the steps; ± is half a 95 % interval over runs (Student's t), where there are several."
    return Table(header, rows, note) if rows else None


def _below_zero(group: Group, depth: int) -> str:
    name = metrics.depth_metric(metrics.OCC_SIGN, depth)
    signs = [value for run in group.runs for value in run.series(name)[1] if math.isfinite(value)]
    return f"{sum(1 - sign for sign in signs) / 2 / len(signs):.0%}" if signs else "not logged"


def _mean_over_runs(group: Group, name: str) -> str:
    means = [mean_of(run.series(name)[1]) for run in group.runs]
    return with_interval(mean_of([mean.value for mean in means if mean is not None]))


FIGURE = FigureSpec(
    "occ",
    "The MTP loss in the policy",
    "The factor on the MTP loss that reaches the policy and, for OCC, the two terms whose ratio it is. The sign is "
    "the alignment's: below 0 the MTP gradient would work against the reward.",
    (metrics.depth_metric(metrics.OCC_ALIGNMENT, 1), metrics.MTP_COEFFICIENT + " other than 0"),
    draw,
    table,
)
