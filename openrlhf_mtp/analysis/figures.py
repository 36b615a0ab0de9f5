"""The figures of a report: title, caption, what each needs, what draws it, and the table beside it.

A figure is added with a function in a `plots` module and an entry here. What a figure needs is written down so that the
report can say what is missing in its place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from openrlhf_mtp.analysis import plots, plots_entropy, plots_head, tables_entropy, tables_head
from openrlhf_mtp.analysis.groups import Group
from openrlhf_mtp.analysis.summary import TIME_PARTS
from openrlhf_mtp.analysis.table import Table
from openrlhf_mtp.runlog import metrics


@dataclass(frozen=True)
class FigureSpec:
    """A figure of the report.

    Attributes:
        title, caption: its texts.
        needs: what it is drawn from, one of these at least: names of metrics, or `records/*.npz`.
        draw: makes it from groups of runs; None when none has what it needs.
        table: the numbers beside it, if it has any.
    """

    title: str
    caption: str
    needs: tuple[str, ...]
    draw: Callable[[Sequence[Group]], Figure | None]
    table: Callable[[Sequence[Group]], Table | None] | None = None


ROLLOUT_RECORDS = "records/*.npz"

FIGURES: dict[str, FigureSpec] = {
    "reward": FigureSpec(
        "Reward",
        "What RL is for: the reward of the sampled responses, and the share of held-out problems answered rightly.",
        (metrics.POLICY_REWARD, metrics.EVAL_ACCURACY),
        plots.reward,
    ),
    "acceptance": FigureSpec(
        "Acceptance",
        "Share of drafts whose token at each depth was accepted (all before it were), and tokens per target forward. "
        "Dotted: the most possible.",
        (metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, 1),),
        plots.acceptance,
    ),
    "agreement": FigureSpec(
        "Trainer and engines",
        "Acceptance that the trainer's overlaps promise at the anchors where the engines drafted, and what the engines "
        "accepted. Both fall together when the head is bad; a gap above the dotted limit means that the engines draft "
        "with other weights, or at another temperature, than the trainer holds.",
        (metrics.SPEC_ALPHA_GAP,),
        plots_head.agreement,
        tables_head.agreement_table,
    ),
    "entropy_acceptance": FigureSpec(
        "Entropy against acceptance",
        "Second half of the run. Each point is the mean over positions of similar entropy with its 95 % interval; the "
        "line is fitted to all positions. A head trained for overlap and verified by rejection sampling keeps its "
        "acceptance when entropy rises; a steep negative slope is the mark of greedy drafts or a cross-entropy head.",
        (ROLLOUT_RECORDS,),
        plots_entropy.entropy_positions,
        tables_entropy.slope_table,
    ),
    "sampling_gain": FigureSpec(
        "Where sampling beats greedy drafting",
        "Acceptance of a sampled draft minus that of a greedy one of the same head at the same position. Above 0, "
        "rejection sampling is worth it; dotted, the entropy above which it is at depth 1.",
        (metrics.depth_metric(metrics.MTP_ALPHA_GREEDY, 1), ROLLOUT_RECORDS + " with greedy acceptance"),
        plots_entropy.sampling_gain,
        tables_entropy.gain_table,
    ),
    "drift": FigureSpec(
        "Drift: entropy or mismatch",
        "Change of the overlap at depth 1 since the early phase, split into what the policy's entropy explains (slope "
        "b, fitted on the early phase) and the rest. A mismatch below 0 is a head that falls behind the policy.",
        ("mtp/entropy in an RL run longer than its early phase",),
        plots_entropy.drift,
        tables_entropy.drift_table,
    ),
    "occ": FigureSpec(
        "The MTP loss in the policy",
        "The factor on the MTP loss that reaches the policy and, for OCC, the two terms whose ratio it is. The sign is "
        "the alignment's: below 0 the MTP gradient would work against the reward.",
        (metrics.depth_metric(metrics.OCC_ALIGNMENT, 1), metrics.MTP_COEFFICIENT + " other than 0"),
        plots_head.occ,
        tables_head.occ_table,
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
        (metrics.PERF_ROLLOUT_TOK_S,),
        plots.throughput,
    ),
    "sync": FigureSpec(
        "Weight synchronization",
        "Time of the round that brings policy and head to every engine, and checks them there.",
        (metrics.TIME_SYNC_S,),
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
        (metrics.POLICY_ENTROPY, metrics.POLICY_GRAD_NORM, metrics.SPEC_LOGPROB_GAP),
        plots.policy,
    ),
}
