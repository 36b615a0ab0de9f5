"""Agreement of trainer and engines on acceptance, which separates a bad head from a bad sync.

With a bad head, the trainer predicts a low acceptance and the engines measure one: both sides agree. If the trainer
predicts more than the engines accept, they draft with other weights or at another temperature: the sync is at fault,
not the head. If it predicts less, the trainer does not measure what is drafted.

The two are comparable if conditioned alike (`docs/analysis.md` has the measurements behind the limits):

    spec/acceptance_rate/depth_j  share of drafts accepted through depth j, at the anchors where the engine drafted
    mtp/reach/depth_j             the same, expected there (`losses.replayed_acceptance`): agrees up to noise
    mtp/expected_length           the length expected at each anchor, over all anchors alike: only roughly comparable

`spec/alpha_gap` is the mean over depths of the first difference. Without a replay, the rough prediction replaces it,
with a wider limit. `spec/length_gap` is the same difference in tokens of acceptance length, from a replay alone, with
its standard error.
"""

import math
from collections.abc import Mapping, Sequence

from openrlhf_mtp.runlog.metrics import (
    MTP_ACCEPTED_STD,
    MTP_ALPHA,
    MTP_EXPECTED_LENGTH,
    MTP_REACH,
    MTP_REPLAYED_LENGTH,
    MTP_REPLAYED_LENGTH_SE,
    SPEC_ACCEPTANCE_RATE,
    SPEC_ALPHA_GAP,
    SPEC_DRAFTS,
    SPEC_LENGTH_GAP,
    SPEC_LENGTH_GAP_SE,
    SPEC_MEAN_ACCEPTANCE_LENGTH,
    STEP,
    depth_metric,
)

REPLAYED_LIMIT, ROUGH_LIMIT = 0.02, 0.15
"""Largest gap without an alarm, beside the noise, for a prediction of each kind."""
WINDOW, FEWEST = 5, 3
"""The gap is judged over the last five steps, three at least: one step alone may be chance."""

Row = Mapping[str, float]


def acceptance_gap(row: Row) -> float | None:
    """Predicted minus measured share of drafted tokens that are accepted; None if the row lacks one of the two."""
    predicted, measured = predicted_share(row), row.get(SPEC_ACCEPTANCE_RATE, math.nan)
    return None if predicted is None or not math.isfinite(measured) else predicted - measured


def gap_metrics(row: Row) -> dict[str, float]:
    """The gap metrics of a row that holds both sides; without a side, or a replay, fewer or none."""
    found = {}
    share = acceptance_gap(row)
    if share is not None:
        found[SPEC_ALPHA_GAP] = share
    length = row.get(MTP_REPLAYED_LENGTH, math.nan) - row.get(SPEC_MEAN_ACCEPTANCE_LENGTH, math.nan)
    error = row.get(MTP_REPLAYED_LENGTH_SE, math.nan)
    if math.isfinite(length) and math.isfinite(error):
        found |= {SPEC_LENGTH_GAP: length, SPEC_LENGTH_GAP_SE: error}
    return found


def predicted_share(row: Row) -> float | None:
    """Accepted share of drafted tokens that the trainer's row predicts; None if it predicts none."""
    reach = _by_depth(row, MTP_REACH)
    if reach:
        return sum(reach) / len(reach)
    depths, length = len(_by_depth(row, MTP_ALPHA)), row.get(MTP_EXPECTED_LENGTH, math.nan)
    return (length - 1.0) / depths if depths and math.isfinite(length) else None


def is_replayed(row: Row) -> bool:
    """Whether the prediction is conditioned as the engines' counters are."""
    return bool(_by_depth(row, MTP_REACH))


def with_gap(rows: Sequence[Row]) -> list[Row]:
    """The rows that hold both the prediction and the measurement."""
    return [row for row in rows if math.isfinite(row.get(SPEC_ALPHA_GAP, math.nan))]


def gap_limit(row: Row) -> float:
    """The largest gap without concern, as a root mean square over steps.

    It is the systematic part plus two standard errors of the engines' own share, given the text. The replay gives the
    standard error; without one it is 1/8 a draft, as measured on the quickstart.
    """
    depths, accepted = len(_by_depth(row, MTP_REACH)), row.get(MTP_ACCEPTED_STD, math.nan)
    std = accepted / depths if depths and math.isfinite(accepted) else 0.125
    noise = 2.0 * std / math.sqrt(max(row.get(SPEC_DRAFTS, 1.0), 1.0))
    return (REPLAYED_LIMIT if depths else ROUGH_LIMIT) + noise


def disagree(rows: Sequence[Row]) -> bool:
    """Whether trainer and engines disagree at the last of these steps.

    The sign may change from step to step (an engine that drafts with an old head is lucky at times), so squares are
    averaged, over the last `WINDOW` steps that have a gap.
    """
    recent = with_gap(rows)[-WINDOW:]
    if len(recent) < FEWEST:
        return False
    square = math.fsum(row[SPEC_ALPHA_GAP] ** 2 for row in recent) / len(recent)
    return math.sqrt(square) > max(map(gap_limit, recent))


def disagreeing_steps(rows: Sequence[Row]) -> list[int]:
    """The steps at which trainer and engines disagree."""
    measured = with_gap(rows)
    return [int(row[STEP]) for at, row in enumerate(measured) if disagree(measured[: at + 1][-WINDOW:])]


def warning(rows: Sequence[Row]) -> str:
    """The message for the user at the last of these steps, if they disagree: it names the widest of the gaps."""
    row = max(with_gap(rows)[-WINDOW:], key=lambda each: abs(each[SPEC_ALPHA_GAP]))
    gap, measured = row[SPEC_ALPHA_GAP], row[SPEC_ACCEPTANCE_RATE]
    fault = (
        "the engines do not draft with the trainer's weights: look at sync/* and draft_sample_method, not at the head"
        if gap > 0
        else "the trainer does not measure what is drafted: look at the temperature, and at whether samples "
        "that were drafted are filtered out before training"
    )
    return (
        f"trainer and engines disagree on acceptance: at step {row[STEP]:.0f} the trainer predicts that "
        f"{measured + gap:.1%} of drafted tokens are accepted, the engines accept {measured:.1%} ({SPEC_ALPHA_GAP} "
        f"{gap:+.3f}, limit {gap_limit(row):.3f} over {WINDOW} steps); {fault}"
    )


def _by_depth(row: Row, base: str) -> list[float]:
    values: list[float] = []
    while math.isfinite(value := row.get(depth_metric(base, len(values) + 1), math.nan)):
        values.append(value)
    return values
