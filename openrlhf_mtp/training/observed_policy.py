"""OpenRLHF's `Actor` with one addition: a function may be called with what a forward pass computes.

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

from openrlhf_mtp.losses.alignment import action_positions
from openrlhf_mtp.losses.packing import Packing
from openrlhf_mtp.losses.targets import from_logits
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.trunk import Trunk, unwrapped


@dataclass(frozen=True)
class Observation:
    """The results of a forward pass of the policy. `attached_hidden` alone leads back to its graph.

    Attributes:
        batch: what the head reads of it, detached.
        attached_hidden: last hidden states [B, T, H] as the head reads them, [1, P, H] of a packed batch, for a loss
            that is to reach the policy; padding positions undefined.
        log_probs: of the action tokens, detached [B, T - 1].
    """

    batch: HeadBatch
    attached_hidden: Tensor
    log_probs: Tensor


OnForward = Callable[[Observation], None]
"""Called at the end of a forward pass, before anything is updated."""


class ObservedPolicy(Actor):
    """A policy whose hidden states can be observed. Unless it is observed it is exactly OpenRLHF's `Actor`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_forward: OnForward | None = None
        self._hidden: Tensor | None = None
        self.reads_unnormed = False
        self._hook = self.trunk().output_head.register_forward_pre_hook(self._keep_hidden)

    def trunk(self) -> Trunk:
        """Embedding and output head of the policy, whatever it is wrapped in."""
        return Trunk.of(self.model)

    def read_unnormed(self) -> None:
        """From now on take hidden states before the final norm, for a head with `wiring.reads_unnormed`."""
        self.reads_unnormed = True
        self._hook.remove()
        self._hook = self.trunk().final_norm.register_forward_pre_hook(self._keep_hidden)

    def _keep_hidden(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._on_forward is not None:
            self._hidden = inputs[0]

    @contextmanager
    def observed(self, on_forward: OnForward) -> Iterator[None]:
        """Within this context every forward pass ends with a call of `on_forward`.

        The call comes before the policy's backward and update, so it sees the weights that produced the states.
        """
        self._on_forward = on_forward
        try:
            yield
        finally:
            self._on_forward = self._hidden = None

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
        with self.observed(lambda _: None):  # keeps the states that the hook sees
            normed: Tensor = body(
                sequences, attention_mask=attention_mask, position_ids=positions
            ).last_hidden_state
            read = normed if self._hidden is None else self._hidden
        return read, normed

    def forward(self, sequences: Tensor, action_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """OpenRLHF's forward pass; see `openrlhf.models.Actor.forward`."""
        result = super().forward(sequences, action_mask, *args, **kwargs)
        if self._on_forward is not None:
            assert self._hidden is not None, "the forward pass did not reach the output head"
            hidden, self._hidden = self._hidden, None
            log_probs, output = result
            vocab_size = self.trunk().config.vocab_size
            inputs = (sequences, action_mask, kwargs["attention_mask"])
            self._on_forward(observation(hidden, output.logits, log_probs, inputs, vocab_size))
        return result


def observation(
    hidden: Tensor,
    logits: Tensor,
    log_probs: Tensor,
    inputs: tuple[Tensor, Tensor | None, Tensor],
    vocab_size: int | None = None,
) -> Observation:
    """The head's view of a forward pass; packed where OpenRLHF packed the batch.

    Args:
        hidden: last hidden states, attached [B, T, H], or [1, P, H] for a packed batch of P tokens.
        logits: divided by the rollout's temperature, float32 [B, T, V], or [1, P, V].
        log_probs: of the action tokens [B, T - 1].
        inputs: sequences [B, T], OpenRLHF's action mask [B, T - 1] and attention mask [B, T].
        vocab_size: V, when columns of the logits beyond it are padding.
    """
    sequences, action_mask, attention_mask = inputs
    assert action_mask is not None, "a pass without action tokens is not observed"
    actions, packing = action_positions(action_mask), None
    if hidden.shape[:2] != sequences.shape:
        packing = Packing.of(attention_mask)
        sequences, actions, attention_mask = map(packing.packed, (sequences, actions, attention_mask))
        assert hidden.shape[:2] == sequences.shape, "a packed row has no padding"
    batch = HeadBatch(
        sequences=sequences,
        attention_mask=attention_mask,
        action_mask=actions,
        hidden=hidden.detach(),
        targets=from_logits(logits.detach(), vocab_size),
        packing=packing,
    )
    return Observation(batch, hidden, log_probs.detach())
