"""The coefficient of the joint term: lambda_j, how much of depth j's loss the policy gets in an optimizer step.

Three classes decide it in the same way (`Coefficient`): `FixedCoefficient` here, the paper's OCC in `occ`, and the form
of OCC's public code in `occ_released`, for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.step_inputs import StepCoefficient


class ActionTokens(NamedTuple):
    """A micro-batch's action tokens in OpenRLHF's layout [B, T - 1]: column t - 1 is about token t. All constants.

    Attributes:
        mask: true for action tokens.
        log_probs: under the policy as it is now.
        old_log_probs: under the policy that scored them before its first update on them.
        advantages: of the tokens.
        rollout_log_probs: as the engine reported them; None when not kept.
    """

    mask: Tensor
    log_probs: Tensor
    old_log_probs: Tensor
    advantages: Tensor
    rollout_log_probs: Tensor | None


class HeadLogProbs(NamedTuple):
    """The head's log-probs of action tokens in OpenRLHF's layout: column t - 1 holds the value for token t.

    Attributes:
        values: log q^j [k, B, T - 1], nat; 0 where depth j predicts nothing. Gradients reach the policy.
        constants: the same values, detached.
        mask: where depth j predicts a token [k, B, T - 1].
    """

    values: Tensor
    constants: Tensor
    mask: Tensor


class Scored(NamedTuple):
    """A micro-batch's action tokens, scored by the policy and by the head."""

    tokens: ActionTokens
    head_log_probs: HeadLogProbs


class Coefficient(Protocol):
    """The interface of a coefficient to the joint term.

    Attributes:
        needs_occ_measured: whether OCC's two terms must be measured beside it, to compare regimes.
        before_move: its value in an optimizer step at which the policy has not moved since it scored the tokens.
        after_move: its value in the later ones; None if it depends on their tokens.
    """

    needs_occ_measured: bool
    before_move: StepCoefficient
    after_move: StepCoefficient | None

    def decide(self, scored: Sequence[Scored]) -> StepCoefficient:
        """The value in an optimizer step whose micro-batches on this rank are `scored` (collective)."""

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore `state()`; one of another kind is no error, a regime may have been changed."""


class FixedCoefficient:
    """lambda is `mtp.coefficient.value` at every depth and in every step: (1/k) sum_j lambda L_j."""

    needs_occ_measured = True

    def __init__(self, settings: CoefficientSettings, depths: int) -> None:
        values = torch.full((depths,), settings.value, dtype=torch.float64)
        constant = StepCoefficient(values, [1.0] * depths, [settings.value / depths] * depths, is_needed=True)
        self.before_move = constant
        self.after_move: StepCoefficient | None = constant

    def decide(self, scored: Sequence[Scored]) -> StepCoefficient:
        """The constant: no token changes it."""
        return self.before_move

    def state(self) -> dict[str, list[float]]:
        """Nothing is remembered."""
        return {}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Nothing is restored."""
