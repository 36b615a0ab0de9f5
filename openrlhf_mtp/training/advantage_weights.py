"""Advantage weights of an optimizer step: one normalizer over all its micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.regime import AdvantageSettings
from openrlhf_mtp.losses.advantage import AdvantageWeights, sample_advantages, weight_sums
from openrlhf_mtp.training.reduce import all_reduce_sum


def _advantages(experience: Any) -> Tensor:
    spread = experience.info.get("group_reward_std")  # OpenRLHF's, where prompts have several samples
    if isinstance(spread, list):  # its replay buffer leaves a list of scalars where it collected a tensor
        spread = torch.stack(spread)
    return sample_advantages(experience.advantages, experience.action_mask, spread)


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

    def begin_step(self, experiences: Sequence[Any], counts: Callable[[Any], Tensor]) -> None:
        """Set the normalizer from this rank's micro-batches of the optimizer step (collective).

        Args:
            experiences: the micro-batches.
            counts: how much of the head's objective each sample of a micro-batch is [B].
        """
        weighting, temperature = self.settings.weighting, self.settings.temperature
        sums = torch.zeros(2, dtype=torch.float64)
        for experience in experiences:
            sums += weight_sums(weighting, temperature, _advantages(experience), counts(experience)).cpu()
        total, counted = all_reduce_sum(sums).tolist()
        self._weights = AdvantageWeights(weighting, temperature, total / counted if counted else 0.0)
        self._steps += 1
        self._fallbacks += int(self._weights.is_fallback)

    def of(self, experience: Any) -> Tensor:
        """Weight of each of the micro-batch's samples [B]."""
        assert self._weights is not None, "begin_step() comes before the optimizer step's first micro-batch"
        weights = self._weights(_advantages(experience))
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
