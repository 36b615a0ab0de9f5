"""Generated tokens per second and response length."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.runlog import metrics


def draw(groups: Groups) -> Figure | None:
    """Draw both over steps."""
    return style.over_steps(
        groups,
        (metrics.PERF_ROLLOUT_TOK_S, "Rollout throughput, all engines", "token/s"),
        (metrics.POLICY_RESPONSE_LENGTH, "Response length", "token"),
    )


FIGURE = FigureSpec(
    "throughput",
    "Throughput",
    "Generated tokens per second; longer responses and higher acceptance both move it.",
    (metrics.PERF_ROLLOUT_TOK_S,),
    draw,
)
