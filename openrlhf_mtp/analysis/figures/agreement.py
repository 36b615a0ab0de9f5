"""Agreement of trainer and engines on acceptance (`runlog.agreement` has the rule)."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Group, Groups
from openrlhf_mtp.analysis.regression import mean_of
from openrlhf_mtp.analysis.table import Table, ranges, signed
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.agreement import disagreeing_steps, gap_limit, is_replayed, with_gap


def draw(groups: Groups) -> Figure | None:
    """Draw drafts accepted through each depth, predicted (dotted) and measured, and the gap with its limit."""
    shown = [group for group in groups if group.has(metrics.SPEC_ALPHA_GAP)]
    if not shown:
        return None
    several = len(shown) > 1
    depths = 0 if several else shown[0].depths(metrics.MTP_REACH)
    figure, axes = style.panels(2 if depths else 1)
    for j in range(1, depths + 1):
        measured = metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, j)
        style.curve(axes[0], shown[0], measured, style.depth_color(j), f"depth {j}")
        predicted = metrics.depth_metric(metrics.MTP_REACH, j)
        style.curve(axes[0], shown[0], predicted, style.INK, "predicted", ":")
    if depths:
        style.label(axes[0], "Accepted through each depth", "fraction of drafts")
        style.unit_interval(axes[0])
    for number, group in enumerate(shown):
        own = style.group_color(number)
        style.curve(axes[-1], group, metrics.SPEC_ALPHA_GAP, own, group.label if several else "gap")
        _limits(figure, group, own if several else style.BROKEN)
    style.zero(axes[-1])
    style.label(axes[-1], "Predicted minus measured", "share of drafted tokens")
    for panel in axes:
        style.legend(panel)
    return figure


def _limits(figure: Figure, group: Group, shade: str) -> None:
    rows = with_gap(group.mean_rows())
    steps = [row[metrics.STEP] for row in rows]
    limits = [gap_limit(row) for row in rows]
    kind = "limit" if rows and is_replayed(rows[-1]) else "limit (rough prediction)"
    for sign in (1.0, -1.0):
        figure.axes[-1].plot(
            steps, [sign * limit for limit in limits], ":", color=shade, linewidth=1.0, label=kind
        )


def table(groups: Groups) -> Table | None:
    """List the gap of every run: its mean, its largest, and the steps that were worth a warning."""
    rows = []
    for group in groups:
        for run in group.runs:
            measured = with_gap(run.rows)
            if measured:
                gaps = [row[metrics.SPEC_ALPHA_GAP] for row in measured]
                mean, largest = mean_of(gaps), max(gaps, key=abs)
                assert mean is not None, "there are gaps, and they are finite"
                kind = "replayed" if is_replayed(measured[-1]) else "rough"
                limit = f"{gap_limit(measured[-1]):.3f}"
                parted = ranges(disagreeing_steps(measured)) or "none"
                rows.append([run.name, kind, signed(mean.value), signed(largest), limit, parted])
    header = ["run", "prediction", "mean gap", "largest gap", "limit", "steps worth a warning"]
    note = (
        "Gap: predicted minus measured share of drafted tokens that are accepted. A replayed prediction is "
        "conditioned as the engines' counters are. A rough one is the mean over anchors and agrees less well with them."
    )
    return Table(header, rows, note) if rows else None


FIGURE = FigureSpec(
    "agreement",
    "Trainer and engines",
    "Acceptance that the trainer predicts at the anchors where the engines drafted, and the acceptance that they "
    "measured. Both fall together with a bad head. A gap above the dotted limit means that the engines draft with "
    "other weights, or at another temperature, than the trainer.",
    (metrics.SPEC_ALPHA_GAP,),
    draw,
    table,
)
