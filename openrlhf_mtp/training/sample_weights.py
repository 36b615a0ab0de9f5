"""Advantage weights of an optimizer step: one normaliser over all its micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from openrlhf_mtp.config.regime import AdvantageSettings
from openrlhf_mtp.losses.advantage import AdvantageWeights, sample_advantages, weight_sums


class SampleWeights:
    """Weights each sample of the head's loss by its advantage; see `losses.advantage`."""

    def __init__(self, settings: AdvantageSettings) -> None:
        self.settings = settings
        self._weights: AdvantageWeights | None = None
        self._largest = 0.0
        self._steps, self._fallbacks = 0, 0

    @property
    def is_on(self) -> bool:
        """False when all samples count alike."""
        return self.settings.weighting != "none"

    def begin_step(self, experiences: Sequence[Any]) -> None:
        """Set the normaliser from this rank's micro-batches of the optimizer step (collective)."""
        weighting, temperature = self.settings.weighting, self.settings.temperature
        sums = torch.zeros(2, dtype=torch.float64)
        for experience in experiences:
            advantages = sample_advantages(experience.advantages, experience.action_mask)
            sums += weight_sums(weighting, temperature, advantages, experience.action_mask.sum(1)).cpu()
        if dist.is_initialized():
            sums = sums.to("cuda" if torch.cuda.is_available() else "cpu")
            dist.all_reduce(sums)
        total, tokens = sums.tolist()
        self._weights = AdvantageWeights(weighting, temperature, total / tokens if tokens else 0.0)
        self._steps += 1
        self._fallbacks += int(self._weights.is_fallback)

    def of(self, experience: Any) -> Tensor:
        """Weight of each of the micro-batch's samples [B]."""
        assert self._weights is not None, "begin_step() comes before the optimizer step's first micro-batch"
        weights = self._weights(sample_advantages(experience.advantages, experience.action_mask))
        self._largest = max(self._largest, float(weights.max()))
        return weights

    def drain(self) -> dict[str, float]:
        """Metrics since the last call on this rank, and start anew."""
        row = {
            "mtp/advantage_weight_max": self._largest,
            "mtp/advantage_fallback": self._fallbacks / max(1, self._steps),
        }
        self._largest, self._steps, self._fallbacks = 0.0, 0, 0
        return row
