"""How much each response of a step weighs in the loss of a head."""

from typing import Literal

import torch
from torch import Tensor

from openrlhf_mtp.losses.advantage import AdvantageWeights, weight_sums
from replay.states import Step

Weighting = Literal["none", "positive", "exponential_1", "exponential_4", "signed", "oracle"]

BY_ADVANTAGE: dict[Weighting, tuple[str, float]] = {
    "positive": ("positive", 1.0),
    "exponential_1": ("exponential", 1.0),
    "exponential_4": ("exponential", 4.0),
}
"""Name here -> `mtp.advantage.weighting` and its temperature."""


def row_weights(weighting: Weighting, step: Step, counts: Tensor) -> Tensor | None:
    """The weight of each response [B]; None is 1.

    Args:
        weighting: `signed` is the advantage itself: with `ce` the gradient of a clipped policy loss on the head's own
            parameters at its first update, where no ratio is clipped. `oracle` is the next policy's probability of the
            response over the own one's: what any weight by advantage stands for. All others are those of RL.
        step: the responses.
        counts: how much of the objective each response is [B].
    """
    if weighting == "none":
        return None
    if weighting == "signed":
        return step.advantages
    if weighting == "oracle":
        ratio = step.log_ratio().exp()
        return ratio * counts.sum() / (ratio * counts).sum()
    name, temperature = BY_ADVANTAGE[weighting]
    advantages = step.advantages.double()
    total, counted = weight_sums(name, temperature, advantages, counts).tolist()
    weights = AdvantageWeights(name, temperature, total / counted if counted else 0.0)
    return weights(advantages).to(torch.float32)
