"""Promised, replayed and measured acceptance length, and how even it is over responses and within them."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Group, Groups
from openrlhf_mtp.analysis.lengths import lengths_of
from openrlhf_mtp.analysis.regression import mean_of
from openrlhf_mtp.analysis.table import Table, number, signed
from openrlhf_mtp.runlog import metrics

QUARTERS = (1, 2, 3, 4)
SIDES = (
    ("measured", metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, "-"),
    ("replayed", metrics.MTP_REPLAYED_LENGTH, ":"),
)


def draw(groups: Groups) -> Figure | None:
    """Draw the three lengths over steps, the length by quarter of a response, and a low quantile over responses."""
    shown = [group for group in groups if group.has(metrics.MTP_REPLAYED_LENGTH)]
    if not shown:
        return None
    figure, axes = style.panels(3)
    for n, group in enumerate(shown):
        shade, name = style.group_color(n), f"{group.label}, " if len(shown) > 1 else ""
        style.curve(axes[0], group, metrics.MTP_EXPECTED_LENGTH, shade, f"{name}promised", "--")
        for side, metric, dash in SIDES:
            style.curve(axes[0], group, metric, shade, f"{name}{side}", dash)
            by_quarter = [_mean(group, metrics.quarter_metric(metric, q)) for q in QUARTERS]
            style.line(axes[1], QUARTERS, by_quarter, shade, f"{name}{side}", dash)
        style.curve(axes[2], group, metrics.SPEC_ACCEPTANCE_LENGTH_P10, shade, f"{name}measured")
        style.curve(axes[2], group, metrics.MTP_REPLAYED_LENGTH_P10, shade, f"{name}replayed", ":")
    style.label(axes[0], "Acceptance length", "tokens per target forward")
    style.label(axes[1], "By quarter of the response", "tokens per target forward", x="quarter")
    axes[1].set_xticks(QUARTERS)
    style.label(axes[2], "A tenth of the responses stay below", "tokens per target forward")
    for panel in axes:
        style.legend(panel)
    return figure


def _mean(group: Group, metric: str) -> float:
    found = mean_of([value for run in group.runs for value in run.series(metric)[1]])
    return float("nan") if found is None else found.value


def table(groups: Groups) -> Table | None:
    """List the three lengths of every run, their differences, and its slow responses."""
    rows = []
    for group in groups:
        for run in group.runs:
            found = lengths_of(run.rows)
            if found is not None:
                slow = mean_of(run.series(metrics.SPEC_SLOW_RESPONSES)[1])
                lengths = [f"{each:.3f}" for each in (found.promised, found.replayed, found.measured)]
                gap = f"{signed(found.gap)} ± {found.gap_error:.3f}"
                share = "–" if slow is None else f"{number(100 * slow.value)} %"
                rows.append([run.name, *lengths, gap, signed(found.unevenness), share])
    header = ["run", "promised", "replayed", "measured", "replayed − measured (± standard error)"]
    header += ["promised − replayed", "responses below 1.5"]
    note = (
        "Promised: the trainer's mean over all anchors. Replayed: the trainer's, where an engine drafts. Measured: the "
        "engines'. Replayed minus measured is 0 but for noise while both sides compute the same. Promised minus "
        "replayed grows where a part of the text is drafted badly."
    )
    return Table(header, rows, note) if rows else None


FIGURE = FigureSpec(
    "evenness",
    "Acceptance length: promised, replayed, measured",
    "Whether the engines accept what the trainer's head deserves, and whether all of the text is drafted equally well: "
    "by quarter of a response, and for the slowest tenth of the responses. Drafts in the last quarter reach beyond the "
    "end, where nothing is accepted. Few drafts a response spread the measured tenth by chance.",
    (metrics.MTP_REPLAYED_LENGTH,),
    draw,
    table,
)
