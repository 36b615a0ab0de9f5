"""The three acceptance lengths of a run side by side: promised, replayed, measured.

    promised    mtp/expected_length             the trainer's mean over all anchors alike
    replayed    mtp/replayed_length             the trainer's, at the places where an engine drafts
    measured    spec/mean_acceptance_length     the engines' drafts

`replayed - measured` is 0 but for noise while trainer and engines agree; beyond its error, they do not. `promised -
replayed` says how uneven the text is: an engine drafts most often where drafts fail. The mean over anchors does not.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from openrlhf_mtp.runlog.metrics import (
    MTP_EXPECTED_LENGTH,
    MTP_REPLAYED_LENGTH,
    SPEC_LENGTH_GAP,
    SPEC_LENGTH_GAP_SE,
    SPEC_MEAN_ACCEPTANCE_LENGTH,
)
from openrlhf_mtp.runlog.rows import Row


@dataclass(frozen=True)
class Lengths:
    """Means over the steps that have all of it, in tokens per target forward.

    Attributes:
        steps: how many they are.
        promised, replayed, measured: the three lengths.
        gap: replayed minus measured.
        gap_error: standard error of `gap`. It is the larger of two: what the luck of the drafts explains given the
            text, and what the gap's spread over the steps shows.
    """

    steps: int
    promised: float
    replayed: float
    measured: float
    gap: float
    gap_error: float

    @property
    def unevenness(self) -> float:
        """Promised minus replayed."""
        return self.promised - self.replayed


DISAGREEMENT = 0.02
"""Largest gap without concern beside three standard errors, in tokens. The trainer replays during its updates, with
weights that the engines do not have yet; eight updates a step moved the quickstart's gap by 0.016 tokens."""
UNEVEN = 0.1
"""Promised minus replayed, in tokens, that is worth a sentence."""


def verdicts(found: Lengths) -> list[str]:
    """A sentence for each of the two differences that is too large; none where all is well."""
    sentences = []
    if abs(found.gap) > DISAGREEMENT + 3.0 * found.gap_error:
        fault = (
            "the engines do not draft with the trainer's weights, or not every draft is computed: this is a fault of "
            "the sync or of the engine, not of the head"
            if found.gap > 0
            else "the trainer does not measure what is drafted"
        )
        sentences.append(
            f"replayed minus measured acceptance length is {found.gap:+.3f} ± {found.gap_error:.3f} tokens over "
            f"{found.steps} steps: {fault}"
        )
    if found.unevenness > UNEVEN:
        sentences.append(
            f"the trainer promises {found.promised:.2f} tokens and replays {found.replayed:.2f}: part of the text is "
            "drafted badly, and an engine drafts there most often; see acceptance by response"
        )
    return sentences


_NEEDED = (
    MTP_EXPECTED_LENGTH,
    MTP_REPLAYED_LENGTH,
    SPEC_MEAN_ACCEPTANCE_LENGTH,
    SPEC_LENGTH_GAP,
    SPEC_LENGTH_GAP_SE,
)


def lengths_of(rows: Iterable[Row]) -> Lengths | None:
    """The lengths of a run's rows; None if no step has all of them."""
    table = [[row[name] for name in _NEEDED] for row in rows if all(_has(row, name) for name in _NEEDED)]
    if not table:
        return None
    promised, replayed, measured, gaps, errors = (list(column) for column in zip(*table, strict=True))
    return Lengths(
        len(table), _mean(promised), _mean(replayed), _mean(measured), _mean(gaps), _error(gaps, errors)
    )


def _has(row: Row, name: str) -> bool:
    return math.isfinite(row.get(name, math.nan))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _error(gaps: Sequence[float], errors: Sequence[float]) -> float:
    n, mean = len(gaps), _mean(gaps)
    luck = math.sqrt(math.fsum(error**2 for error in errors)) / n
    if n < 2:
        return luck
    return max(luck, math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / (n - 1) / n))
