"""Advantage weights in a run: read off OpenRLHF's experiences, normalized over an optimizer step and all ranks.

The formulas are in `losses.advantage`; the settings are `mtp.advantage`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.regime import AdvantageSettings
from openrlhf_mtp.losses.advantage import AdvantageWeights, sample_advantages, weight_sums
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.training.reduce import all_reduce_sum


def advantages_of(experience: Any) -> Tensor:
    """The advantage of each of a micro-batch's samples [B]."""
    spread = experience.info.get("group_reward_std")  # OpenRLHF's, where prompts have several samples
    if isinstance(spread, list):  # its replay buffer leaves a list of scalars where it collected a tensor
        spread = torch.stack(spread)
    return sample_advantages(experience.advantages, experience.action_mask, spread)


def step_weights(
    settings: AdvantageSettings, experiences: Sequence[Any], counts: Callable[[Any], Tensor]
) -> AdvantageWeights:
    """The weights of an optimizer step's samples, 1 on average over what it counts (collective).

    Args:
        settings: `mtp.advantage`.
        experiences: this rank's micro-batches of the step.
        counts: how much of a loss each sample of a micro-batch is [B].
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for experience in experiences:
        advantages = advantages_of(experience)
        sums += weight_sums(settings.weighting, settings.temperature, advantages, counts(experience)).cpu()
    return AdvantageWeights.of(settings.weighting, settings.temperature, all_reduce_sum(sums))


class AdvantageMetrics:
    """How uneven the weights of the steps were, and how many steps had no sample with weight."""

    def __init__(self) -> None:
        self._largest, self._effective_share = 0.0, 0.0
        self._steps, self._fallbacks = 0, 0

    def add(self, weights: AdvantageWeights, experiences: Sequence[Any]) -> None:
        """Add an optimizer step and this rank's micro-batches of it."""
        highest = torch.stack([advantages_of(one).max() for one in experiences])
        self._largest = max(self._largest, float(weights(highest).max()))  # no form falls with the advantage
        self._effective_share += weights.effective_share
        self._steps += 1
        self._fallbacks += int(weights.is_fallback)

    def drain(self) -> dict[str, float]:
        """Metrics since the last call on this rank; reset them."""
        steps = max(1, self._steps)
        row = {
            metrics.MTP_ADVANTAGE_WEIGHT_MAX: self._largest,
            metrics.MTP_ADVANTAGE_EFFECTIVE_SHARE: self._effective_share / steps,
            metrics.MTP_ADVANTAGE_FALLBACK: self._fallbacks / steps,
        }
        self._largest, self._effective_share, self._steps, self._fallbacks = 0.0, 0.0, 0, 0
        return row
