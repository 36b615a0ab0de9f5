"""g_RL and g_MTP over all parameters of the policy, by the functions that training uses.

g_RL is minus the gradient of OpenRLHF's `PolicyLoss`, g_MTP minus that of depth 1's loss in `JointTerm`, with a
coefficient of 1. KL and entropy terms of a run's loss are left out: the theory is about the reward.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from openrlhf.models.loss import PolicyLoss
from openrlhf.trainer.ppo_utils.experience import Experience
from torch import Tensor

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.heads.formats.head_folder import load_head
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.joint.coefficient import ActionTokens, FixedCoefficient, HeadLogProbs, Scored
from openrlhf_mtp.training.joint.term import JointTerm
from openrlhf_mtp.training.observed_policy import Observation, ObservedPolicy
from openrlhf_mtp.training.step_inputs import StepCoefficient, StepInputs, Undecided

DUAL_CLIP = 3.0
"""Bound of the ratio where the advantage is negative: verl's default, in which the paper's code is written. PPO's own
clipping has none there, and the head's ratio to the policy that sampled reaches tens of thousands on single tokens."""
ROWS = 32
"""Responses in a forward and backward pass."""
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
        self.policy_loss = PolicyLoss(dual_clip=DUAL_CLIP)

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
        rl = mtp = torch.zeros(())
        scored = []
        for rows, piece in pieces(experience):
            loss, term, seen = self._losses(piece, inputs)
            rl = rl + self._ascent(loss, retain_graph=True)
            mtp = mtp + self._ascent(term)
            scored.append((rows, seen))
        return rl, mtp, in_order(scored, experience.action_mask.shape)

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
        found = [(rows, forward(policy, piece)[0]) for rows, piece in pieces(each)]
        each.action_log_probs = placed(found, each.action_mask.shape)


def pieces(experience: Experience) -> Iterator[tuple[Tensor, Experience]]:
    """Micro-batches of rows of like length, which are half the work, with the numbers of their rows."""
    lengths = experience.attention_mask.sum(1)
    for rows in lengths.argsort().split(ROWS):
        width = int(lengths[rows].max())
        old = experience.action_log_probs
        yield (
            rows,
            Experience(
                sequences=experience.sequences[rows, :width],
                attention_mask=experience.attention_mask[rows, :width],
                action_mask=experience.action_mask[rows, : width - 1],
                advantages=experience.advantages[rows, : width - 1],
                action_log_probs=None if old is None else old[rows, : width - 1],
            ),
        )


def placed(values: Sequence[tuple[Tensor, Tensor]], shape: Sequence[int]) -> Tensor:
    """Values of pieces [..., b, s] at their rows of a text of B rows and S columns; 0 beyond a piece's width."""
    _, first = values[0]
    whole = first.new_zeros(*first.shape[:-2], *shape)
    for rows, each in values:
        whole[..., rows, : each.shape[-1]] = each.detach()
    return whole


def in_order(scored: Sequence[tuple[Tensor, Scored]], shape: Sequence[int]) -> Scored:
    """One micro-batch of what was scored in pieces, so that a proxy sees the text as a run's micro-batch has it."""

    def of(read: Callable[[Scored], Tensor]) -> Tensor:
        return placed([(rows, read(each)) for rows, each in scored], shape)

    tokens = ActionTokens(
        mask=of(lambda one: one.tokens.mask),
        log_probs=of(lambda one: one.tokens.log_probs),
        old_log_probs=of(lambda one: one.tokens.old_log_probs),
        advantages=of(lambda one: one.tokens.advantages),
        rollout_log_probs=None,
    )
    values = of(lambda one: one.head_log_probs.constants)
    return Scored(tokens, HeadLogProbs(values, values, of(lambda one: one.head_log_probs.mask)))
