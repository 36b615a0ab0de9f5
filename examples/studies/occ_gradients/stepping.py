"""Steps of a policy with a coefficient, and what they change on held-out text.

gradient  θ + η (g_RL + λ g_MTP), as in OCC's theory
adam      the same over the root of its second moment, which the parts of the text give: near a run's step
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from openrlhf.trainer.ppo_utils.experience import Experience
from replay.states import ROWS, see, view_of
from torch import Tensor, nn
from transformers import PreTrainedModel

from occ_gradients.contrasts import Kind
from occ_gradients.estimators import of_the_others
from occ_gradients.gradients import Differentiated, Parts
from occ_gradients.text import experience, split
from openrlhf_mtp.runlog.rollouts import RecordedResponse

ADAM_EPSILON = 1e-8


def direction(kind: Kind, parts: Parts, coefficient: float) -> Tensor:
    """Where a step with λ goes, before its size [P]."""
    both = parts.rl + coefficient * parts.mtp
    mean = both.mean(0)
    if kind == "gradient":
        return mean
    return mean / (both.square_().mean(0).sqrt_() + ADAM_EPSILON)


def size_for(divergence: Callable[[float], float], target: float, first: float) -> float:
    """The size of a step that moves the policy by `target`, within a twentieth; divergence grows with its square.

    Raises:
        ValueError: the step moves nothing.
    """
    size = first
    for _ in range(12):
        found = divergence(size)
        if found <= 0.0:
            raise ValueError(
                f"a step of size {size:g} moves the policy by {found:g} nats: every advantage may be 0"
            )
        if abs(found / target - 1.0) < 0.05:
            break
        size *= min(10.0, max(0.1, (target / found) ** 0.5))
    return size


class HeldOut:
    """Held-out responses of a policy, and the policy after a step on them.

    Args:
        responses: `each` of a problem in a row, sampled by the policy.
        each: responses of a problem.
        here: the policy.
        moved: the same policy, which steps may change.
    """

    def __init__(
        self, responses: Sequence[RecordedResponse], each: int, here: Differentiated, moved: PreTrainedModel
    ) -> None:
        self.each = each
        self.rewards = torch.tensor([one.reward for one in responses])
        by_length = sorted(range(len(responses)), key=lambda at: len(responses[at].ids))
        self.order = torch.tensor(by_length)
        self.sorted = [responses[at] for at in by_length]
        self.here, self.moved = here, moved
        self.step = see(self.sorted, here.policy.model, None)
        self.origin = nn.utils.parameters_to_vector(here.parameters).detach()

    def gradient(self) -> Tensor:
        """Gradient of the expected reward, with the baseline of `estimators.reward_change` [P]."""
        centered = (self.rewards - of_the_others(self.rewards, self.each))[self.order] / len(self.rewards)
        total = torch.zeros_like(self.origin)
        for at, rows in enumerate(split(self.sorted, ROWS)):
            batch: Experience = experience(rows)
            total += self.here.reward_gradient(batch, centered[at * ROWS : at * ROWS + len(rows)])
        return total

    def after(self, step: Tensor) -> tuple[Tensor, float]:
        """Take a step [P]: log-probability of each response after it minus before [M], and KL a token in nats."""
        nn.utils.vector_to_parameters(self.origin + step, self.moved.parameters())
        return self.against(self.moved)

    def against(self, model: PreTrainedModel) -> tuple[Tensor, float]:
        """The same for another policy of the same shape."""
        seen = replace(self.step, ahead=view_of(model, self.step.sequences, self.step.present))
        assert seen.ahead is not None, "just given"
        log_ratio = torch.empty(len(self.order))
        log_ratio[self.order] = seen.log_ratio()
        return log_ratio, seen.divergence(seen.own, seen.ahead)

    def sample(self, count: int) -> "HeldOut":
        """Every so many-th response, about `count` of them, of all lengths: enough for a divergence."""
        few = copy.copy(self)
        few.order = torch.arange(0, len(self.order), max(1, len(self.order) // count))
        few.step = self.step.rows(few.order)
        few.order = torch.arange(len(few.order))
        return few
