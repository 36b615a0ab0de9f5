"""OpenRLHF's `Actor` with one addition: an observer may read what a forward pass computes.

The head is trained on the hidden states and the logits of the policy's own forward pass. The states are taken at the
input of the output head (after the final norm) or, for heads that read them there, at the input of that norm, so no
model code is touched and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from openrlhf.models import Actor
from torch import Tensor, nn

from openrlhf_mtp.training.trunk import Trunk, unwrapped


@dataclass(frozen=True)
class Observation:
    """What a forward pass of the policy computed, attached to its graph.

    Attributes:
        hidden: last hidden states [B, T, H] as the head reads them, padding positions undefined.
        logits: divided by the rollout's temperature, float32 [B, T, V], or [1, P, V] for a packed batch of P tokens.
        packed_position: where each position of the flattened batch lies in a packed one [B * T]; None if not packed.
        log_probs: of the action tokens [B, T - 1].
    """

    hidden: Tensor
    logits: Tensor
    packed_position: Tensor | None
    log_probs: Tensor


Observer = Callable[[Observation], None]
"""Called at the end of every forward pass, before anything is updated."""


class ObservedPolicy(Actor):
    """A policy whose hidden states can be observed. Without an observer it is exactly OpenRLHF's `Actor`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._observer: Observer | None = None
        self._hidden: Tensor | None = None
        self._hook = self.trunk().output_head.register_forward_pre_hook(self._keep_hidden)

    def trunk(self) -> Trunk:
        """Embedding and output head of the policy, whatever it is wrapped in."""
        return Trunk.of(self.model)

    def read_unnormed(self) -> None:
        """From now on take hidden states before the final norm, for a head with `wiring.reads_unnormed`."""
        self._hook.remove()
        self._hook = self.trunk().final_norm.register_forward_pre_hook(self._keep_hidden)

    def _keep_hidden(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._observer is not None:
            self._hidden = inputs[0]

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
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

    def observe(self, experience: Any) -> Observation:
        """The forward pass on one of OpenRLHF's micro-batches, for the head alone."""
        seen: list[Observation] = []
        with self.observed(seen.append):
            self(
                experience.sequences,
                experience.action_mask,
                attention_mask=experience.attention_mask,
                return_output=True,
            )
        return seen[0]

    def hidden_states(self, sequences: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Last hidden states [B, T, H] without logits, for right- or left-padded batches: as the head reads them, and
        after the final norm, which is the same unless the head reads them before it."""
        positions = attention_mask.long().cumsum(-1) - 1
        positions.masked_fill_(attention_mask == 0, 1)
        body: Any = unwrapped(self.model).base_model
        with self.observed(lambda _: None):
            normed: Tensor = body(
                sequences, attention_mask=attention_mask, position_ids=positions
            ).last_hidden_state
            read = normed if self._hidden is None else self._hidden
        return read, normed

    def forward(self, sequences: Tensor, *args: Any, **kwargs: Any) -> Any:
        """OpenRLHF's forward pass; see `openrlhf.models.Actor.forward`."""
        result = super().forward(sequences, *args, **kwargs)
        if self._observer is not None:
            assert self._hidden is not None, "the forward pass did not reach the output head"
            hidden, self._hidden = self._hidden, None
            log_probs, output = result
            self._observer(
                _observation(hidden, log_probs, output.logits, sequences, kwargs["attention_mask"])
            )
        return result


def _observation(
    hidden: Tensor, log_probs: Tensor, logits: Tensor, sequences: Tensor, attention_mask: Tensor
) -> Observation:
    """Hidden states back in [B, T, H] when OpenRLHF packed the batch into one row [1, P, H]; logits stay packed."""
    if hidden.shape[:2] == sequences.shape:
        return Observation(hidden, logits, None, log_probs)
    present = attention_mask.flatten().bool()
    padded = hidden.new_zeros(sequences.numel(), hidden.shape[-1])
    padded = padded.index_put((present.nonzero().flatten(),), hidden[0, : int(present.sum())])
    position = (present.long().cumsum(0) - 1).clamp(min=0)
    return Observation(padded.view(*sequences.shape, -1), logits, position, log_probs)
