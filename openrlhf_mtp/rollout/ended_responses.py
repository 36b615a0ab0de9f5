"""Drafts of the responses that an engine finished: how many of their tokens were accepted, and how evenly.

vLLM reports the drafts of a request in order when it ends (`per_request_spec_decode_metrics`). It counts what it
accepts before it cuts a response at its end token or its limit. Tokens beyond that end are no tokens of the response,
so they count as rejected here, as they do in the trainer's replay (`losses.replayed_acceptance`).

A draft that begins after c tokens of a response of n belongs to the quarter `4 (c - 1) // (n - 1)`: the first token is
sampled without a draft. The replay divides its anchors alike. vLLM does not say which later tokens it sampled without
a draft, as after a preemption; the drafts behind such a token are placed one token too early.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Self

import numpy as np

from openrlhf_mtp.runlog import metrics

QUARTERS = 4
Counts = tuple[tuple[int, int], ...]
"""Drafts and accepted tokens, pair by pair."""


@dataclass(frozen=True)
class EndedResponses:
    """Drafts and the tokens they got accepted, inside their responses.

    Attributes:
        responses: of each response that drafts were verified for.
        quarters: of all of them, by quarter of the response.
        by_depth: drafts whose tokens at depths 1 to j were all accepted, for j = 1 ... k; empty without drafts.
        drafted: tokens drafted.
    """

    responses: Counts = ()
    quarters: Counts = ((0, 0),) * QUARTERS
    by_depth: tuple[int, ...] = ()
    drafted: int = 0

    @classmethod
    def of(cls, tokens: int, accepted: Sequence[int], drafted: Sequence[int], *, depths: int) -> Self:
        """Count the drafts of one response.

        Args:
            tokens: its length n.
            accepted: tokens that the engine accepted of each of its drafts, in order, also beyond the response's end.
            drafted: tokens of each of its drafts.
            depths: the most tokens of a draft, k.
        """
        if not accepted:
            return cls()
        quarters = [[0, 0] for _ in range(QUARTERS)]
        by_depth = [0] * depths
        anchors, place = max(1, tokens - 1), 0
        for count in accepted:
            inside = max(min(count, tokens - 1 - place), 0)
            quarter = quarters[min(QUARTERS * place // anchors, QUARTERS - 1)]
            quarter[0] += 1
            quarter[1] += inside
            for j in range(inside):
                by_depth[j] += 1
            place += count + 1
        whole = (len(accepted), sum(by_depth))
        return cls((whole,), tuple((a, b) for a, b in quarters), tuple(by_depth), sum(drafted))

    @classmethod
    def of_outputs(cls, outputs: Iterable[Any]) -> Self:
        """Count the drafts of vLLM's `CompletionOutput`s; one of an engine that does not draft adds nothing."""
        return cls.joined(
            [
                cls.of(
                    len(one.token_ids),
                    drafts.per_step_accepted,
                    drafts.per_step_drafted,
                    depths=drafts.num_spec_tokens,
                )
                for one in outputs
                if (drafts := one.spec_decode_metrics) is not None
            ]
        )

    @classmethod
    def from_dict(cls, counts: dict[str, Any]) -> Self:
        responses, quarters = (tuple((a, b) for a, b in counts[name]) for name in ("responses", "quarters"))
        return cls(responses, quarters, tuple(counts["by_depth"]), counts["drafted"])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put the counts of several sets of responses together."""
        quarters = [
            (sum(part.quarters[q][0] for part in parts), sum(part.quarters[q][1] for part in parts))
            for q in range(QUARTERS)
        ]
        by_depth = map(sum, zip_longest(*(part.by_depth for part in parts), fillvalue=0))
        responses = tuple(one for part in parts for one in part.responses)
        return cls(responses, tuple(quarters), tuple(by_depth), sum(part.drafted for part in parts))


def acceptance_metrics(ended: EndedResponses) -> dict[str, float]:
    """`spec/*` of some responses, all from the same drafts; empty when nothing was drafted.

    The rate at depth j counts a draft only when its tokens at depths 1..j were all accepted, so the rates fall
    with j and sum to the mean acceptance length minus 1.
    """
    if not ended.responses:
        return {}
    drafts = sum(count for count, _ in ended.responses)
    accepted = sum(ended.by_depth)
    row = {
        metrics.SPEC_ACCEPTANCE_RATE: accepted / ended.drafted,
        metrics.SPEC_MEAN_ACCEPTANCE_LENGTH: 1.0 + accepted / drafts,
        metrics.SPEC_DRAFTS: float(drafts),
    }
    for j, through in enumerate(ended.by_depth, start=1):
        row[metrics.depth_metric(metrics.SPEC_ACCEPTANCE_RATE, j)] = through / drafts
    return row | _evenness(ended)


def _evenness(ended: EndedResponses) -> dict[str, float]:
    """How evenly the drafts are accepted: over responses, and within them."""
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
