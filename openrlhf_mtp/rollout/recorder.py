"""Keep what vLLM's proposer drafts, so that it can be compared with the chain that training computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

Proposal = tuple[list[int], list[list[float]] | None]
"""One draft of one request: its k tokens, and their distributions [k, V] unless drafts are greedy."""


class DraftRecorder:
    """Wraps the proposer of one model runner while it lives.

    Attributes:
        proposals: request id -> its proposals in order; those at the end of a prompt's chunk, which the engine throws
            away, are left out.
    """

    def __init__(self, runner: Any) -> None:
        self.proposals: dict[str, list[Proposal]] = {}
        self._proposer = runner.drafter
        propose = self._proposer.propose

        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            tokens: Tensor = propose(*args, **kwargs)
            drawn_from = self._proposer.take_last_draft_probs()
            for row, request in enumerate(runner.input_batch.req_ids):
                if runner.discard_request_mask.np[row]:
                    continue
                distributions = None if drawn_from is None else drawn_from[row].tolist()
                self.proposals.setdefault(request, []).append((tokens[row].tolist(), distributions))
            return tokens

        self._proposer.propose = recorded

    def remove(self) -> None:
        """Give the proposer its own method back."""
        del self._proposer.propose
