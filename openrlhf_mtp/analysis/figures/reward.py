"""Training reward and held-out accuracy over steps."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.runlog import metrics


def draw(groups: Groups) -> Figure | None:
    """Draw the two panels, or the one that was measured."""
    return style.over_steps(
        groups,
        (metrics.POLICY_REWARD, "Reward on training prompts", "score"),
        (metrics.EVAL_ACCURACY, "Accuracy on held-out prompts", "fraction"),
    )


FIGURE = FigureSpec(
    "reward",
    "Reward",
    "What RL is for: the reward of the sampled responses, and the share of held-out problems answered rightly.",
    (metrics.POLICY_REWARD, metrics.EVAL_ACCURACY),
    draw,
)
