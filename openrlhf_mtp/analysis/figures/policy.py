"""Early signs of trouble in the policy: entropy, gradient norm, engine-trainer gap."""

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import style
from openrlhf_mtp.analysis.figure_spec import FigureSpec
from openrlhf_mtp.analysis.groups import Groups
from openrlhf_mtp.runlog import metrics


def draw(groups: Groups) -> Figure | None:
    """Draw the three over steps, of those that were measured."""
    return style.over_steps(
        groups,
        (metrics.POLICY_ENTROPY, "Policy entropy", "nat"),
        (metrics.POLICY_GRAD_NORM, "Policy gradient norm", "norm"),
        (metrics.SPEC_LOGPROB_GAP, "Engine-trainer log-prob gap, mean", "nat"),
    )


FIGURE = FigureSpec(
    "policy",
    "The policy in training",
    "Entropy, gradient norm, and the distance between the engine's log-probs and the trainer's.",
    (metrics.POLICY_ENTROPY, metrics.POLICY_GRAD_NORM, metrics.SPEC_LOGPROB_GAP),
    draw,
)
