"""Keep what vLLM's proposer drafts, so that it can be compared with the chain that training computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class DraftRecorder:
    """Wraps one proposer's `propose` while it lives.

    Attributes:
        proposals: one entry a call: tokens [B, k] and distributions [B, k, V] (None with greedy drafts), on CPU.
    """

    def __init__(self, proposer: Any) -> None:
        self.proposals: list[tuple[Tensor, Tensor | None]] = []
        self._proposer = proposer
        propose = proposer.propose

        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            tokens: Tensor = propose(*args, **kwargs)
            drawn_from = proposer.take_last_draft_probs()
            self.proposals.append(
                (tokens.cpu().clone(), None if drawn_from is None else drawn_from.cpu().clone())
            )
            return tokens

        proposer.propose = recorded

    def remove(self) -> None:
        """Give the proposer its own method back."""
        del self._proposer.propose
