"""The figures of a report: title, caption, what each needs, and what draws it.

A figure is added with a function in `plots.py` and an entry here. What a figure needs is written down so that the
report can say what is missing in its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from openrlhf_mtp import metrics
from openrlhf_mtp.analysis import plots
from openrlhf_mtp.analysis.summary import TIME_PARTS
from openrlhf_mtp.run_folder import Run


@dataclass(frozen=True)
class FigureSpec:
    """A figure: its title and caption in the report, the metrics of which it needs one, and what draws it."""

    title: str
    caption: str
    needs: tuple[str, ...]
    draw: Callable[[Sequence[Run]], Figure | None]


FIGURES: dict[str, FigureSpec] = {
    "reward": FigureSpec(
        "Reward",
        "What RL is for: the reward of the sampled responses, and the share of held-out problems answered rightly.",
        ("policy/reward", "eval/accuracy"),
        plots.reward,
    ),
    "acceptance": FigureSpec(
        "Acceptance",
        "Share of drafts whose token at each depth was accepted, and tokens per target forward. Dashed: what the "
        "trainer's overlaps promise; an engine well below it drafts with stale or wrong weights. Dotted: the most "
        "possible.",
        (metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, 1),),
        plots.acceptance,
    ),
    "entropy_acceptance": FigureSpec(
        "Entropy against acceptance",
        "A head trained for overlap and verified by rejection sampling keeps its acceptance when the policy's entropy "
        "rises; a steep negative slope is the mark of greedy drafts or a cross-entropy head.",
        ("policy/entropy", metrics.SPEC_ACCEPTANCE_RATE),
        plots.entropy_acceptance,
    ),
    "time_split": FigureSpec(
        "Where the time goes",
        "Seconds of each step by part.",
        tuple(name for _, name in TIME_PARTS),
        plots.time_split,
    ),
    "throughput": FigureSpec(
        "Throughput",
        "Generated tokens per second; longer responses and higher acceptance both move it.",
        (metrics.ROLLOUT_TOK_S,),
        plots.throughput,
    ),
    "sync": FigureSpec(
        "Weight synchronisation",
        "Time of the round that brings policy and head to every engine, and checks them there.",
        ("time/sync_s",),
        plots.sync,
    ),
    "head": FigureSpec(
        "The head in training",
        "Loss and overlap of the head with the policy, measured by the trainer.",
        (metrics.MTP_LOSS,),
        plots.head,
    ),
    "policy": FigureSpec(
        "The policy in training",
        "Entropy, gradient norm, and the distance between the engine's log-probs and the trainer's.",
        ("policy/entropy", "policy/grad_norm", "spec/logprob_gap"),
        plots.policy,
    ),
}
