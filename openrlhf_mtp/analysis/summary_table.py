"""The table at the top of a report: what every reader asks for first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrlhf_mtp.analysis.groups import Group
from openrlhf_mtp.analysis.regression import mean_of
from openrlhf_mtp.analysis.table import Table, duration, number, with_interval
from openrlhf_mtp.runlog import metrics

ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("reward, first → last step", metrics.POLICY_REWARD, ("first", "last")),
    ("held-out accuracy, first → last", metrics.EVAL_ACCURACY, ("first", "last")),
    ("responses cut at their limit, first → last", metrics.POLICY_TRUNCATED_RATE, ("first", "last")),
    ("acceptance rate (accepted / drafted), first → last", metrics.SPEC_ACCEPTANCE_RATE, ("first", "last")),
    ("acceptance rate (accepted / drafted), mean", metrics.SPEC_ACCEPTANCE_RATE, ("mean",)),
    ("mean acceptance length, first → last", metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, ("first", "last")),
    ("mean acceptance length, lowest", metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, ("min",)),
    ("mean acceptance length, mean", metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, ("mean",)),
    ("promised length (mean over anchors), first → last", metrics.MTP_EXPECTED_LENGTH, ("first", "last")),
    ("promised length, mean", metrics.MTP_EXPECTED_LENGTH, ("mean",)),
    ("replayed length (trainer, where engines draft), mean", metrics.MTP_REPLAYED_LENGTH, ("mean",)),
    ("replayed minus measured length, mean", metrics.SPEC_LENGTH_GAP, ("mean",)),
    ("predicted minus measured share of drafts, mean", metrics.SPEC_ALPHA_GAP, ("mean",)),
    ("effective share of advantage-weighted samples, mean", metrics.MTP_ADVANTAGE_EFFECTIVE_SHARE, ("mean",)),
    ("engine-trainer log-prob gap, largest step mean (nat)", metrics.SPEC_LOGPROB_GAP, ("max",)),
    ("rollout throughput, mean (token/s)", metrics.PERF_ROLLOUT_TOK_S, ("mean",)),
    ("synchronization, mean (s)", metrics.TIME_SYNC_S, ("mean",)),
    ("synchronization, bytes a round", metrics.SYNC_BYTES, ("last",)),
    ("synchronization, calls a round", metrics.SYNC_RPC_CALLS, ("last",)),
    ("step, mean (s)", metrics.TIME_STEP_S, ("mean",)),
)
"""Label, metric, and which of its extents are shown."""

Summaries = Mapping[Path, Mapping[str, Any]]


def summary_table(groups: Sequence[Group], summaries: Summaries) -> Table:
    """A column a group; a cell is the run's number, or the mean of the runs' numbers with its 95 % interval.

    Args:
        groups: the columns.
        summaries: `summary.summarize` of every run, by the run's path.
    """
    own = [[summaries[run.path] for run in group.runs] for group in groups]
    rows = [
        ["runs (seeds)", *(f"{len(g.runs)} ({', '.join(g.seeds)})" for g in groups)],
        ["steps", *(_mean([s["steps"] for s in column]) for column in own)],
        ["wall time of the steps", *(duration(sum(s["wall_s"] for s in c) / len(c)) for c in own)],
    ]
    for label, metric, keys in ROWS:
        if any(metric in summary["metrics"] for column in own for summary in column):
            rows.append([label, *(_extents(column, metric, keys) for column in own)])
    for part in dict.fromkeys(part for column in own for summary in column for part in summary["time_share"]):
        shares = [[s["time_share"][part] for s in column if part in s["time_share"]] for column in own]
        rows.append([f"share of time: {part}", *(f"{sum(c) / len(c):.0%}" if c else "–" for c in shares)])
    several = any(len(group.runs) > 1 for group in groups)
    note = "Mean over a group's runs ± half its 95 % interval (Student's t). Bands in figures: lowest to highest run."
    return Table(["", *(group.label for group in groups)], rows, note if several else "")


def _extents(column: Sequence[Mapping[str, Any]], metric: str, keys: Sequence[str]) -> str:
    known = [summary["metrics"][metric] for summary in column if metric in summary["metrics"]]
    return " → ".join(_mean([extent[key] for extent in known]) for key in keys) if known else "–"


def _mean(values: Sequence[float]) -> str:
    return number(values[0]) if len(values) == 1 else with_interval(mean_of(values))
