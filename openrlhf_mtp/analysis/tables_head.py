"""The tables beside the figures of a head inside RL."""

import math
from collections.abc import Sequence

from openrlhf_mtp.analysis.groups import Group
from openrlhf_mtp.analysis.regression import mean_of
from openrlhf_mtp.analysis.table import Table, ranges, signed, with_interval
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.agreement import disagreeing_steps, gap_limit, is_walked, with_gap

Groups = Sequence[Group]


def agreement_table(groups: Groups) -> Table | None:
    """The gap of every run: its mean, its largest, and the steps that were worth a warning."""
    rows = []
    for group in groups:
        for run in group.runs:
            measured = with_gap(run.rows)
            if measured:
                gaps = [row[metrics.SPEC_ALPHA_GAP] for row in measured]
                mean, largest = mean_of(gaps), max(gaps, key=abs)
                assert mean is not None, "there are gaps, and they are finite"
                promise = "walked" if is_walked(measured[-1]) else "rough"
                limit = f"{gap_limit(measured[-1]):.3f}"
                parted = ranges(disagreeing_steps(measured)) or "none"
                rows.append([run.name, promise, signed(mean.value), signed(largest), limit, parted])
    header = ["run", "promise", "mean gap", "largest gap", "limit", "steps worth a warning"]
    note = (
        "Gap: promised minus measured share of drafted tokens that are accepted. A walked promise is conditioned as "
        "the engines' counters are; a rough one is the plain mean over anchors and agrees less well with them."
    )
    return Table(header, rows, note) if rows else None


def occ_table(groups: Groups) -> Table | None:
    """Means over the run of the coefficient and its terms, and how often the alignment was below 0."""
    rows = []
    for group in groups:
        for j in range(1, group.depths(metrics.MTP_COEFFICIENT) + 1):
            name = metrics.depth_metric(metrics.MTP_COEFFICIENT, j)
            factors = [value for run in group.runs for value in run.series(name)[1] if math.isfinite(value)]
            if any(factors):
                terms = [_mean_over_runs(group, metrics.depth_metric(base, j)) for base in _BASES]
                rows.append([group.label, f"depth {j}", *terms, _below_zero(group, j)])
    header = ["run", "depth", "coefficient", "alignment", "magnitude", "updates with alignment below 0"]
    note = "Means over the steps; ± is half a 95 % interval over runs (Student's t), where there are several."
    return Table(header, rows, note) if rows else None


_BASES = (metrics.MTP_COEFFICIENT, metrics.OCC_ALIGNMENT, metrics.OCC_MAGNITUDE)


def _below_zero(group: Group, depth: int) -> str:
    name = metrics.depth_metric(metrics.OCC_SIGN, depth)
    signs = [value for run in group.runs for value in run.series(name)[1] if math.isfinite(value)]
    return f"{sum(1 - sign for sign in signs) / 2 / len(signs):.0%}" if signs else "not logged"


def _mean_over_runs(group: Group, name: str) -> str:
    means = [mean_of(run.series(name)[1]) for run in group.runs]
    return with_interval(mean_of([mean.value for mean in means if mean is not None]))
