"""The coefficient of each optimizer step: fixed, or OCC with optional smoothing and bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.joint.occ import occ_coefficient


class CoefficientTracker:
    """Turns an optimizer step's sums into its coefficient by depth, and remembers it for smoothing.

    Args:
        settings: `mtp.coefficient`.
        depths: number of depths k.
    """

    def __init__(self, settings: CoefficientSettings, depths: int) -> None:
        self.settings = settings
        self.depths = depths
        self._previous: Tensor | None = None

    def fixed(self) -> Tensor:
        """The constant of kind "fixed" [k]."""
        return torch.full((self.depths,), self.settings.value, dtype=torch.float64)

    def paper(self, sums: Tensor) -> Tensor:
        """OCC's ratio of sums, from `occ_sums` over all ranks: [3, k] -> [k]."""
        sums = sums.cpu()
        return self._settled(occ_coefficient(sums, self.settings.scale), tokens=float(sums[2].sum()))

    def released_code(self, sums: Tensor) -> Tensor:
        """The public code's mean ratio, from `released_code_sums` of this rank: [2] -> [k], 0 beyond depth 1."""
        coefficient = torch.zeros(self.depths, dtype=torch.float64)
        total, positions = sums.tolist()
        coefficient[0] = self.settings.scale * total / max(1.0, positions)
        return self._settled(coefficient, tokens=positions)

    def _settled(self, coefficient: Tensor, *, tokens: float) -> Tensor:
        """Smooth over optimizer steps, then bound; both are off by default.

        Without tokens, on the first update after a rollout, the coefficient is 0 and nothing is remembered.
        """
        if not tokens:
            return torch.zeros_like(coefficient)
        if self._previous is not None and self.settings.smoothing > 0.0:
            share = self.settings.smoothing
            coefficient = share * self._previous + (1.0 - share) * coefficient
        self._previous = coefficient
        if self.settings.bounds is not None:
            coefficient = coefficient.clamp(*self.settings.bounds)
        return coefficient

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint needs."""
        return {} if self._previous is None else {"previous": self._previous.tolist()}

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore `state()`."""
        if "previous" in state:
            self._previous = torch.tensor(state["previous"], dtype=torch.float64)
