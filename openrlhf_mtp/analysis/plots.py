"""What draws the figures of a run's course. A function returns None when no run has what it shows."""

import numpy as np
from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.drawing import Groups, color, curve, depth_color, over_steps, scale
from openrlhf_mtp.analysis.summary import OTHER, TIME_PARTS, row_parts
from openrlhf_mtp.runlog import metrics


def reward(groups: Groups) -> Figure | None:
    """Training reward and held-out accuracy over steps."""
    return over_steps(
        groups,
        (metrics.POLICY_REWARD, "Reward on training prompts", "score"),
        (metrics.EVAL_ACCURACY, "Accuracy on held-out prompts", "fraction"),
    )


def acceptance(groups: Groups) -> Figure | None:
    """Share of drafts accepted through each depth, and tokens per target forward."""
    depths = max((group.depths(metrics.SPEC_ACCEPTANCE_RATE) for group in groups), default=0)
    if depths == 0:
        return None
    single = len(groups) == 1
    figure, axes = style.panels(2 if single else depths + 1)
    for number, group in enumerate(groups):
        for j in range(1, depths + 1):
            panel = axes[0] if single else axes[j - 1]
            shade, name = (depth_color(j), f"depth {j}") if single else (color(number), group.label)
            curve(panel, group, metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, j), shade, name)
            style.label(panel, "Accepted drafts by depth" if single else f"Accepted at depth {j}", "fraction")
            style.unit_interval(panel)
        curve(axes[-1], group, metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, color(number), group.label)
    style.label(axes[-1], "Mean acceptance length", "tokens per target forward")
    style.lengths(axes[-1], depths)
    for panel in axes:
        style.legend(panel)
    return figure


def time_split(groups: Groups) -> Figure | None:
    """Seconds of each step by part, one panel a group."""
    split = {group.label: [row for row in group.mean_rows() if row_parts(row)] for group in groups}
    timed = {name: rows for name, rows in split.items() if rows}
    if not timed:
        return None
    figure, axes = style.panels(len(timed))
    for panel, (name, rows) in zip(axes, timed.items(), strict=True):
        steps = [row[metrics.STEP] for row in rows]
        base = np.zeros(len(rows))
        for part in [*(name for name, _ in TIME_PARTS), OTHER]:
            seconds = np.array([row_parts(row).get(part, 0.0) for row in rows])
            if seconds.any():
                panel.bar(steps, seconds, 0.85, bottom=base, color=style.PART_COLORS[part], label=part)
            base += seconds
        style.label(panel, "Time of a step" if len(timed) == 1 else name, "s")
        style.legend(panel)
    return figure


def throughput(groups: Groups) -> Figure | None:
    """Generated tokens per second and response length."""
    return over_steps(
        groups,
        (metrics.PERF_ROLLOUT_TOK_S, "Rollout throughput, all engines", "token/s"),
        (metrics.POLICY_RESPONSE_LENGTH, "Response length", "token"),
    )


def sync(groups: Groups) -> Figure | None:
    """Seconds of a synchronization, of which verification."""
    figure = over_steps(groups, (metrics.TIME_SYNC_S, "Synchronization", "s"))
    if figure is not None:
        for number, group in enumerate(groups):
            name = "verification" if len(groups) == 1 else f"{group.label}, verification"
            curve(figure.axes[0], group, metrics.SYNC_VERIFY_S, color(number), name, "--")
        style.legend(figure.axes[0])
    return figure


def head(groups: Groups) -> Figure | None:
    """The head as its trainer sees it: loss, overlap per depth, expected length; held-out values as dashed lines."""
    shown = [group for group in groups if group.has(metrics.MTP_LOSS)]
    if not shown:
        return None
    figure, axes = style.panels(3)
    depths = max(group.depths(metrics.MTP_ALPHA) for group in shown)
    single = len(shown) == 1
    for number, group in enumerate(shown):
        for panel, name in ((axes[0], metrics.MTP_LOSS), (axes[2], metrics.MTP_EXPECTED_LENGTH)):
            curve(panel, group, name, color(number), group.label)
            curve(panel, group, metrics.held_out(name), color(number), "held-out", "--")
        for j in range(1, depths + 1) if single else sorted({1, depths}):
            name = metrics.depth_metric(metrics.MTP_ALPHA, j)
            shade = depth_color(j) if single else color(number)
            dash = "-" if single or j == 1 else "-."
            curve(axes[1], group, name, shade, f"depth {j}" if single else f"{group.label}, depth {j}", dash)
            curve(axes[1], group, metrics.held_out(name), shade, "held-out", "--")
    style.label(axes[0], "Loss of the head", "loss")
    scale(axes[0], [value for group in shown for value in group.band(metrics.MTP_LOSS).high], "loss")
    style.label(axes[1], "Overlap with the policy", "probability")
    style.label(axes[2], "Expected length", "tokens per target forward")
    style.unit_interval(axes[1])
    style.lengths(axes[2], depths)
    for panel in axes:
        style.legend(panel)
    return figure


def policy(groups: Groups) -> Figure | None:
    """What shows early that the policy is unwell: entropy, gradient norm, engine-trainer gap."""
    return over_steps(
        groups,
        (metrics.POLICY_ENTROPY, "Policy entropy", "nat"),
        (metrics.POLICY_GRAD_NORM, "Policy gradient norm", "norm"),
        (metrics.SPEC_LOGPROB_GAP, "Engine-trainer log-prob gap, mean", "nat"),
    )
