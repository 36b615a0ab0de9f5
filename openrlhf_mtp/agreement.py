"""Do trainer and engines agree on acceptance? It separates a bad head from a bad sync.

A bad head promises little and is accepted little: both sides agree. Where the trainer promises more than the engines
accept, they do not draft with the weights that the trainer holds, or not at its temperature: the sync is at fault, not
the head. Where it promises less, the trainer measures something else than what is drafted.

The two are comparable only when conditioned alike (`docs/analysis.md`, which has the measurements behind the limits):

    spec/acceptance_rate/depth_j  share of drafts accepted through depth j, at the anchors where the engine drafted
    mtp/reach/depth_j             the same, expected, at the anchors where it did (`losses.walk`): agrees up to noise
    mtp/expected_length           1 + sum_j prod_{i<=j} alpha_i over all anchors alike: only roughly comparable

`spec/alpha_gap` is the mean over depths of the first difference; the rough promise stands in where the walk is missing,
with a wider limit.
"""

import math
from collections.abc import Iterable, Mapping

from openrlhf_mtp.metrics import (
    MTP_ALPHA,
    MTP_EXPECTED_LENGTH,
    MTP_REACH,
    SPEC_ACCEPTANCE_RATE,
    SPEC_ALPHA_GAP,
    STEP,
    depth_metric,
)

WALKED_LIMIT, ROUGH_LIMIT = 0.03, 0.15
"""Largest gap that is let pass, beside the noise, for a promise of each kind."""
PATIENCE = 3
"""Steps in a row with such a gap, before it is worth a warning."""

Row = Mapping[str, float]


def alpha_gap(row: Row) -> float | None:
    """Promised minus measured share of drafted tokens that are accepted; None if the row lacks one of the two."""
    promised, measured = promised_share(row), row.get(SPEC_ACCEPTANCE_RATE, math.nan)
    return None if promised is None or not math.isfinite(measured) else promised - measured


def promised_share(row: Row) -> float | None:
    """Accepted share of drafted tokens that the trainer's row promises; None if it does not say."""
    reach = _by_depth(row, MTP_REACH)
    if reach:
        return sum(reach) / len(reach)
    depths, length = len(_by_depth(row, MTP_ALPHA)), row.get(MTP_EXPECTED_LENGTH, math.nan)
    return (length - 1.0) / depths if depths and math.isfinite(length) else None


def is_walked(row: Row) -> bool:
    """Whether the promise is conditioned as the engines' counters are."""
    return bool(_by_depth(row, MTP_REACH))


def gap_limit(row: Row) -> float:
    """The largest |gap| that is no cause for concern.

    To the systematic limit come four standard errors of the engines' own share, whose standard deviation given the text
    is about 1/8 a draft (measured: 0.0034 at 1,350 drafts).
    """
    noise = 0.5 / math.sqrt(max(row.get("spec/drafts", 1.0), 1.0))
    return (WALKED_LIMIT if is_walked(row) else ROUGH_LIMIT) + noise


def has_parted(row: Row) -> bool:
    """Whether this step's gap is above its limit."""
    gap = row.get(SPEC_ALPHA_GAP, math.nan)
    return math.isfinite(gap) and abs(gap) > gap_limit(row)


def parted_steps(rows: Iterable[Row]) -> list[int]:
    """Steps that end a series of `PATIENCE` or more in a row whose gap is above the limit."""
    found, series = [], 0
    for row in rows:
        if SPEC_ALPHA_GAP in row:
            series = series + 1 if has_parted(row) else 0
            if series >= PATIENCE:
                found.append(int(row[STEP]))
    return found


def warning(row: Row) -> str:
    """What to tell the user about a row whose gap is above the limit."""
    gap = row[SPEC_ALPHA_GAP]
    measured = row[SPEC_ACCEPTANCE_RATE]
    fault = (
        "the engines do not draft with what the trainer holds: look at sync/* and draft_sample_method, not at the head"
        if gap > 0
        else "the trainer measures something else than what is drafted: look at the temperature and the head's folder"
    )
    return (
        f"trainer and engines disagree on acceptance for {PATIENCE} steps: the head promises that {measured + gap:.0%} "
        f"of the drafted tokens are accepted, the engines accept {measured:.0%} (spec/alpha_gap {gap:+.3f}, limit "
        f"{gap_limit(row):.3f}); {fault}"
    )


def _by_depth(row: Row, base: str) -> list[float]:
    values: list[float] = []
    while math.isfinite(value := row.get(depth_metric(base, len(values) + 1), math.nan)):
        values.append(value)
    return values
