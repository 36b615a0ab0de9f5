"""g_RL and g_MTP over all parameters of the policy, by the functions that training uses.

g_RL is minus the gradient of OpenRLHF's `PolicyLoss`, g_MTP minus that of depth 1's loss in `JointTerm`, with a
coefficient of 1. KL and entropy terms of a run's loss are left out: the theory is about the reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from openrlhf.models.loss import PolicyLoss
from openrlhf.trainer.ppo_utils.experience import Experience
from torch import Tensor

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.heads.formats.head_folder import load_head
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.joint.coefficient import FixedCoefficient, Scored
from openrlhf_mtp.training.joint.term import JointTerm
from openrlhf_mtp.training.observed_policy import Observation, ObservedPolicy
from openrlhf_mtp.training.step_inputs import StepCoefficient, StepInputs, Undecided

SETTINGS = MTPSettings(regime="joint_policy", depths=1, coefficient={"kind": "fixed", "value": 1.0})


class Keeping(FixedCoefficient):
    """A coefficient of 1 that keeps what it was shown, so that proxies read what the term's gradient is of."""

    def __init__(self) -> None:
        super().__init__(SETTINGS.coefficient, depths=1)
        self.kept: list[Scored] = []

    def decide(self, scored: Sequence[Scored]) -> StepCoefficient:
        """1."""
        self.kept += scored
        return super().decide(scored)


@dataclass(frozen=True)
class Parts:
    """Gradients of the parts of a text, each of the size of the whole text's.

    Attributes:
        rl, mtp: [B, P].
        scored: of each part.
    """

    rl: Tensor
    mtp: Tensor
    scored: Sequence[Scored]


class Differentiated:
    """A policy with a head, in float32, whose two losses are differentiated."""

    def __init__(self, policy: Path, head: Path) -> None:
        self.policy = load(policy)
        trunk = self.policy.trunk()
        self.head_trainer = HeadTrainer(
            engine=None,
            head=load_head(head, trunk.config, dtype=torch.float32, device="cpu"),
            trunk=trunk,
            depths=SETTINGS.depths,
            settings=SETTINGS,
            temperature=1.0,
        )
        self.policy_loss = PolicyLoss()

    @property
    def parameters(self) -> list[Tensor]:
        """All of the policy's."""
        return list(self.policy.model.parameters())

    def parts(self, experiences: Sequence[Experience]) -> Parts:
        """Gradients by part; every part is divided by the mean number of tokens of a part, so parts are comparable."""
        inputs = step_inputs(experiences)
        found = [self._part(each, inputs) for each in experiences]
        rl, mtp, scored = zip(*found, strict=True)
        return Parts(torch.stack(rl), torch.stack(mtp), scored)

    def losses(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """The policy's loss and the head's, of a whole text."""
        rl, mtp, _ = self._losses(experience, step_inputs([experience]))
        return rl, mtp

    def _part(self, experience: Experience, inputs: StepInputs) -> tuple[Tensor, Tensor, Scored]:
        loss, term, scored = self._losses(experience, inputs)
        rl = self._ascent(loss, retain_graph=True)
        return rl, self._ascent(term), scored

    def _losses(self, experience: Experience, inputs: StepInputs) -> tuple[Tensor, Tensor, Scored]:
        seen, log_probs = self._observe(experience)
        with torch.no_grad():
            output = self.head_trainer.loss(seen.batch)
        joint = JointTerm(SETTINGS, self.head_trainer, self.policy, self.policy_loss)
        joint.coefficient = keeping = Keeping()
        term = joint.term(experience, seen, output, inputs)
        assert term is not None, "an undecided coefficient needs its term"
        loss = self.policy_loss(
            log_probs,
            experience.action_log_probs,
            experience.advantages,
            action_mask=experience.action_mask,
            **inputs.normalizers,
        )[0]
        return loss, term, keeping.kept[0]

    def _observe(self, experience: Experience) -> tuple[Observation, Tensor]:
        """The forward pass: the head's view of it, and the log-probs of action tokens, attached [B, T - 1]."""
        seen: list[Observation] = []
        with self.policy.observed(seen.append):
            log_probs, _ = forward(self.policy, experience)
        return seen[0], log_probs

    def reward_gradient(self, experience: Experience, weight: Tensor) -> Tensor:
        """Gradient [P] of the sum of log-probs of responses, each times its weight [B]."""
        log_probs, _ = forward(self.policy, experience)
        return -self._ascent((log_probs.sum(-1) * weight).sum())

    def _ascent(self, loss: Tensor, *, retain_graph: bool = False) -> Tensor:
        """Minus the gradient, flat [P]."""
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=retain_graph)
        return -torch.cat([each.flatten() for each in gradients])


def step_inputs(experiences: Sequence[Experience]) -> StepInputs:
    """Of an optimizer step of one micro-batch, whose loss is divided by the mean number of tokens of `experiences`."""
    tokens = sum(int(each.action_mask.sum()) for each in experiences) / len(experiences)
    return StepInputs(
        {"dp_size": 1, "batch_num_tokens": torch.tensor(tokens), "global_batch_size": None},
        anchor_seed=0,
        policy_has_moved=True,
        coefficient=Undecided(),
    )


def load(folder: Path) -> ObservedPolicy:
    """A policy as training has it, in float32."""
    return ObservedPolicy(str(folder), attn_implementation="sdpa", param_dtype="fp32").eval()


def forward(policy: ObservedPolicy, experience: Experience) -> tuple[Tensor, object]:
    """Log-probs of the action tokens [B, T - 1] and the model's output, as in OpenRLHF's training step."""
    result: tuple[Tensor, object] = policy(
        experience.sequences,
        experience.action_mask,
        attention_mask=experience.attention_mask,
        return_output=True,
    )
    return result


@torch.no_grad()
def score(folder: Path, experiences: Sequence[Experience]) -> None:
    """Give the experiences the log-probs of the policy that sampled them."""
    policy = load(folder)
    for each in experiences:
        each.action_log_probs = forward(policy, each)[0]
