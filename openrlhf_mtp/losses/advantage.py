"""Weights of samples in the head's loss, from their advantages: the formulas.

The setting is `mtp.advantage`. `training.advantage_weights` reads a run's samples and normalizes over its ranks.

Our design for the second stage of MTP-RL (Findings of ACL 2026, 1871), whose abstract alone is public: samples
with a positive advantage are where the policy is moving to, so the head should follow there first. With a = advantage
of the sample and a temperature t:

    none          1
    positive      H(a),  the limit of sigmoid for t -> 0, hence H(0) = 1/2
    sigmoid       1 / (1 + exp(-a / t))
    exponential   exp(a / t)

Weights are divided by their mean over what the objective counts of the whole optimizer step, so that the total weight
is 1 whatever the lengths and the head's learning rate keeps its meaning. A group whose rewards are all equal counts as
a = 0, the neutral weight of its form; when nothing has weight (all advantages negative under `positive`), all samples
count alike, since the head must follow the policy all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_EXPONENT = 20.0
"""exp(20) = 5e8 outweighs any batch; beyond it a mean in float64 would lose the rest."""

WEIGHTINGS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "none": lambda a, t: torch.ones_like(a),
    "positive": lambda a, t: torch.heaviside(a, torch.full_like(a, 0.5)),
    "sigmoid": lambda a, t: torch.sigmoid(a / t),
    "exponential": lambda a, t: (a / t).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).exp(),
}
"""Name in `mtp.advantage.weighting` -> (advantage of each sample [B], temperature) -> weight [B]."""


EQUAL_REWARDS = 1e-6
"""A group's standard deviation up to which its rewards are equal: float32 rounds the mean of equal ones."""


def sample_advantages(advantages: Tensor, action_mask: Tensor, group_std: Tensor | None = None) -> Tensor:
    """Mean advantage over each sample's action tokens, in float64.

    Args:
        advantages: of the tokens [B, S].
        action_mask: which of them are actions [B, S]; a sample without any has advantage 0.
        group_std: standard deviation of the rewards of each sample's group [B]. If it is 0 the group says nothing,
            and the advantage is 0 even if whitening over the batch or a KL penalty has moved it.

    Returns:
        [B].
    """
    mask = action_mask.double()
    mean = (advantages.double() * mask).sum(1) / mask.sum(1).clamp(min=1.0)
    return mean if group_std is None else mean.masked_fill(group_std.to(mean) <= EQUAL_REWARDS, 0.0)


@dataclass(frozen=True)
class AdvantageWeights:
    """The normalizer of one optimizer step.

    Attributes:
        weighting: name in `WEIGHTINGS`.
        temperature: scale of the advantage.
        mean: mean weight over what the step counts, all ranks; 0 when nothing has weight.
        effective_share: effective sample size of the weights over the sample size, (sum w)^2 / (n sum w^2), where a
            sample counts as much as the objective counts of it; 1 when all count alike.
    """

    weighting: str
    temperature: float
    mean: float
    effective_share: float = 1.0

    @classmethod
    def of(cls, weighting: str, temperature: float, sums: Tensor) -> AdvantageWeights:
        """From the `weight_sums` of a whole step."""
        total, squares, counted = sums.tolist()
        if not total:
            return cls(weighting, temperature, 0.0)
        return cls(weighting, temperature, total / counted, total * total / (counted * squares))

    @property
    def is_fallback(self) -> bool:
        """No sample of the step has weight, so all count alike."""
        return self.mean == 0.0

    def __call__(self, advantages: Tensor) -> Tensor:
        """Weight of each sample, 1 on average over what the step counts: [B] -> [B]."""
        if self.is_fallback:
            return torch.ones_like(advantages)
        return WEIGHTINGS[self.weighting](advantages, self.temperature) / self.mean


def weight_sums(weighting: str, temperature: float, advantages: Tensor, counts: Tensor) -> Tensor:
    """Sums over samples for `AdvantageWeights.of`, to add over micro-batches and ranks: [3] in float64.

    Args:
        weighting: name in `WEIGHTINGS`.
        temperature: scale of the advantage.
        advantages: of each sample [B].
        counts: how much of the objective each sample is [B].

    Returns:
        Sums of weight x count, of weight^2 x count, and of the counts.
    """
    weights, counts = WEIGHTINGS[weighting](advantages.double(), temperature), counts.double()
    return torch.stack([(weights * counts).sum(), (weights.square() * counts).sum(), counts.sum()])
