"""OpenRLHF's `Actor` with one addition: an observer may read the hidden states of a forward pass.

The head is trained on the states that the policy's own forward pass computes anyway. They are taken at the
input of the output head (after the final norm), so no model code is touched and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from openrlhf.models import Actor
from torch import Tensor, nn

from openrlhf_mtp.training.trunk import Trunk, unwrapped

HiddenObserver = Callable[[Tensor], None]
"""Called with the last hidden states [B, T, H], detached, padding positions undefined."""


class MTPActor(Actor):
    """A policy whose hidden states can be observed. Without an observer it is exactly OpenRLHF's `Actor`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._observer: HiddenObserver | None = None
        self._hidden: Tensor | None = None
        self.trunk().output_head.register_forward_pre_hook(self._keep_hidden)

    def trunk(self) -> Trunk:
        """Embedding and output head of the policy, whatever it is wrapped in."""
        return Trunk.of(self.model)

    def _keep_hidden(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._observer is not None:
            self._hidden = inputs[0].detach()

    @contextmanager
    def observed(self, observer: HiddenObserver) -> Iterator[None]:
        """Within this context every forward pass ends with a call of `observer`.

        The call comes before the policy's backward and update, so the observer sees the weights that produced
        the states.
        """
        self._observer = observer
        try:
            yield
        finally:
            self._observer = None
            self._hidden = None

    def hidden_states(self, sequences: Tensor, attention_mask: Tensor) -> Tensor:
        """Last hidden states [B, T, H] after the final norm, without logits, for right- or left-padded batches."""
        positions = attention_mask.long().cumsum(-1) - 1
        positions.masked_fill_(attention_mask == 0, 1)
        body = unwrapped(self.model).base_model
        states: Tensor = body(
            sequences, attention_mask=attention_mask, position_ids=positions
        ).last_hidden_state
        return states

    def forward(self, sequences: Tensor, *args: Any, **kwargs: Any) -> Any:
        """OpenRLHF's forward pass; see `openrlhf.models.Actor.forward`."""
        result = super().forward(sequences, *args, **kwargs)
        if self._observer is not None:
            assert self._hidden is not None, "the forward pass did not reach the output head"
            attention_mask = kwargs["attention_mask"] if "attention_mask" in kwargs else args[1]
            hidden, self._hidden = self._hidden, None
            self._observer(_unpacked(hidden, sequences, attention_mask))
        return result


def _unpacked(hidden: Tensor, sequences: Tensor, attention_mask: Tensor) -> Tensor:
    """Hidden states back in [B, T, H] when OpenRLHF packed the batch into one row [1, sum of lengths, H]."""
    if hidden.shape[:2] == sequences.shape:
        return hidden
    batch, length = sequences.shape
    padded = hidden.new_zeros(batch * length, hidden.shape[-1])
    padded[attention_mask.flatten().nonzero().flatten()] = hidden[0]
    return padded.view(batch, length, -1)
