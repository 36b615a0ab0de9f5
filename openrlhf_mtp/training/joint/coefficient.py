"""The coefficient of the joint term: lambda_j, how much of depth j's loss the policy gets in an optimizer step.

Three classes have the same methods: `FixedCoefficient` here, the paper's OCC in `occ`, and the form of OCC's public
code in `occ_released`, for comparison.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.regime import CoefficientSettings


class ActionTokens(NamedTuple):
    """A micro-batch's action tokens in OpenRLHF's layout [B, T - 1]: column t - 1 is about token t. All constants.

    Attributes:
        mask: true for action tokens.
        log_probs: under the policy as it is now.
        old_log_probs: under the policy that generated the tokens.
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
        values: log q^j [k, B, T - 1], nat; 0 where depth j predicts nothing.
        mask: where it does [k, B, T - 1].
    """

    values: Tensor
    mask: Tensor


class Factors(NamedTuple):
    """The factors of a coefficient, by depth.

    Attributes:
        advantages: factor inside the policy loss [k].
        loss: factor on a depth's loss [k].
    """

    advantages: list[float]
    loss: list[float]


class Coefficient(Protocol):
    """The interface of a coefficient to the joint term. Sums of micro-batches may be added up."""

    measures_occ: bool
    """Whether OCC's two terms must be measured beside it, to compare regimes."""

    def ahead(self, *, policy_has_moved: bool) -> Tensor | None:
        """lambda [k] before any token of the optimizer step is seen; None if it depends on them."""

    def is_needed(self, coefficient: Tensor | None, *, policy_has_moved: bool) -> bool:
        """Whether the head's log-probs must be computed, the same on every rank."""

    def sums(self, tokens: ActionTokens, head: HeadLogProbs) -> Tensor:
        """The addends of a micro-batch in the sums behind lambda."""

    def of(self, sums: Tensor) -> Tensor:
        """lambda [k] from the sums of this rank's micro-batches (collective)."""

    def factors(self, coefficient: Tensor) -> Factors:
        """The factors that lambda [k] multiplies."""

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore `state()`; one of another kind is no error, a regime may have been changed."""


def on_losses(coefficient: Tensor) -> Factors:
    """The joint term's mean over depths, (1/k) sum_j lambda_j L_j."""
    depths = len(coefficient)
    return Factors([1.0] * depths, [factor / depths for factor in coefficient.tolist()])


class FixedCoefficient:
    """lambda is `mtp.coefficient.value` at every depth and in every step."""

    measures_occ = True

    def __init__(self, settings: CoefficientSettings, depths: int) -> None:
        self.value = torch.full((depths,), settings.value, dtype=torch.float64)

    def ahead(self, *, policy_has_moved: bool) -> Tensor | None:
        """The constant [k]."""
        return self.value

    def is_needed(self, coefficient: Tensor | None, *, policy_has_moved: bool) -> bool:
        """True at every optimizer step."""
        return True

    def sums(self, tokens: ActionTokens, head: HeadLogProbs) -> Tensor:
        """Nothing: no token changes a constant."""
        return torch.zeros(0)

    def of(self, sums: Tensor) -> Tensor:
        """The constant [k]."""
        return self.value

    def factors(self, coefficient: Tensor) -> Factors:
        """lambda_j / k on each depth's loss."""
        return on_losses(coefficient)

    def state(self) -> dict[str, list[float]]:
        """Nothing is remembered."""
        return {}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Nothing is restored."""


class Smoothing:
    """Mix a coefficient with the optimizer step's before, then bound it; both are off by default."""

    def __init__(self, settings: CoefficientSettings) -> None:
        self.settings = settings
        self._previous: Tensor | None = None

    def settled(self, coefficient: Tensor, *, tokens: float) -> Tensor:
        """The coefficient that is used [k].

        Without tokens, on the first update after a rollout, it is 0 and nothing is remembered.
        """
        if not tokens:
            return torch.zeros_like(coefficient)
        if self._previous is not None and self.settings.smoothing > 0.0:
            weight = self.settings.smoothing
            coefficient = weight * self._previous + (1.0 - weight) * coefficient
        self._previous = coefficient
        if self.settings.bounds is not None:
            coefficient = coefficient.clamp(*self.settings.bounds)
        return coefficient

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""
        return {} if self._previous is None else {"previous": self._previous.tolist()}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore what `state()` returned."""
        if "previous" in state:
            self._previous = torch.tensor(state["previous"], dtype=torch.float64)
