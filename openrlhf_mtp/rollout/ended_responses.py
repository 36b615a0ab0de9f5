"""Drafts of the responses that an engine finished: how evenly they were accepted, over responses and within them.

vLLM reports the drafts of a request in order when it ends (`per_request_spec_decode_metrics`). A draft that begins
after c tokens of a response of n belongs to the quarter `4 (c - 1) // (n - 1)`: the first token is sampled without a
draft. The trainer's replay divides its anchors alike (`losses.replayed_acceptance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from openrlhf_mtp.runlog import metrics

QUARTERS = 4
Counts = tuple[tuple[int, int], ...]
"""Drafts and accepted tokens, pair by pair."""


@dataclass(frozen=True)
class EndedResponses:
    """Drafts and the tokens they got accepted.

    Attributes:
        responses: of each response that drafts were verified for.
        quarters: of all of them, by quarter of the response.
    """

    responses: Counts = ()
    quarters: Counts = ((0, 0),) * QUARTERS

    @classmethod
    def of(cls, tokens: int, accepted: Sequence[int]) -> Self:
        """Count the drafts of one response.

        Args:
            tokens: its length n.
            accepted: tokens accepted of each of its drafts, in order.
        """
        if not accepted:
            return cls()
        quarters = [[0, 0] for _ in range(QUARTERS)]
        anchors, place = max(1, tokens - 1), 0
        for count in accepted:
            quarter = quarters[min(QUARTERS * place // anchors, QUARTERS - 1)]
            quarter[0] += 1
            quarter[1] += count
            place += count + 1
        return cls(((len(accepted), sum(accepted)),), tuple((a, b) for a, b in quarters))

    @classmethod
    def from_dict(cls, counts: dict[str, Any]) -> Self:
        return cls(*(tuple((a, b) for a, b in counts[name]) for name in ("responses", "quarters")))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put the counts of several sets of responses together."""
        quarters = [
            (sum(part.quarters[q][0] for part in parts), sum(part.quarters[q][1] for part in parts))
            for q in range(QUARTERS)
        ]
        return cls(tuple(one for part in parts for one in part.responses), tuple(quarters))


def by_response_metrics(ended: EndedResponses) -> dict[str, float]:
    """The metrics of some responses; empty without any."""
    if not ended.responses:
        return {}
    drafts, accepted = np.array(ended.responses, dtype=np.float64).T
    lengths = 1.0 + accepted / drafts
    row = {
        metrics.SPEC_ACCEPTANCE_LENGTH_P10: float(np.quantile(lengths, 0.1)),
        metrics.SPEC_SLOW_RESPONSES: float((lengths < metrics.SLOW_RESPONSE).mean()),
    }
    for q, (drafted, got) in enumerate(ended.quarters, start=1):
        if drafted:
            row[metrics.quarter_metric(metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, q)] = 1.0 + got / drafted
    return row
