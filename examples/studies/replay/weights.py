"""How much each response of a step weighs in the loss of a head."""

from typing import Literal

import torch
from torch import Tensor

from openrlhf_mtp.losses.advantage import AdvantageWeights, weight_sums
from replay.states import Step

Weighting = Literal["none", "positive", "exponential_1", "exponential_4", "signed", "mixed", "oracle"]

BY_ADVANTAGE: dict[Weighting, tuple[str, float]] = {
    "positive": ("positive", 1.0),
    "exponential_1": ("exponential", 1.0),
    "exponential_4": ("exponential", 4.0),
}
"""Name here -> `mtp.advantage.weighting` and its temperature."""


def row_weights(weighting: Weighting, step: Step, counts: Tensor) -> Tensor | None:
    """The weight of each response [B]; None is 1.

    Args:
        weighting: `signed` is the advantage itself: with `ce` the gradient of `losses.clipped_policy` at the first
            update after a rollout, where no ratio is clipped. `mixed` is 1 more: that loss and plain `ce`. `oracle` is
            the next policy's probability of the response over the own one's: what any weight by advantage stands for.
            All others are those of RL.
        step: the responses.
        counts: how much of the objective each response is [B].
    """
    if weighting == "none":
        return None
    if weighting == "signed":
        return step.advantages
    if weighting == "mixed":
        return 1.0 + step.advantages
    if weighting == "oracle":
        ratio = step.log_ratio().exp()
        return ratio * counts.sum() / (ratio * counts).sum()
    name, temperature = BY_ADVANTAGE[weighting]
    advantages = step.advantages.double()
    weights = AdvantageWeights.of(name, temperature, weight_sums(name, temperature, advantages, counts))
    return weights(advantages).to(torch.float32)
