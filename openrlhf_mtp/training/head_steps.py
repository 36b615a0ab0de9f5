"""The ends of an optimizer step for the head: what is fixed before its first micro-batch, and the head's own update.

The micro-batches in between are in `policy_trainer.PolicyTrainer.training_step`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.losses.advantage import AdvantageWeights
from openrlhf_mtp.losses.alignment import action_positions
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.training.advantage_weights import AdvantageMetrics, step_weights
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.joint.term import JointTerm
from openrlhf_mtp.training.observed_policy import ObservedPolicy
from openrlhf_mtp.training.step_inputs import StepInputs
from openrlhf_mtp.upstream.openrlhf.optimizer_step import StepInfo


class HeadSteps:
    """Begins and ends the optimizer steps of a run's head.

    Args:
        mtp: the job's settings.
        head_trainer: trains the head.
        policy: the policy that trains.
        policy_loss: OpenRLHF's `PolicyLoss` of this run.
    """

    def __init__(
        self,
        mtp: MTPSettings,
        head_trainer: HeadTrainer,
        policy: ObservedPolicy,
        policy_loss: Callable[..., Any],
    ) -> None:
        self.mtp = mtp
        self.head_trainer = head_trainer
        self.joint = JointTerm(mtp, head_trainer, policy, policy_loss) if mtp.is_joint else None
        self._advantage_metrics = AdvantageMetrics()
        self._policy_has_moved = True

    def begin_rollout_batch(self) -> None:
        """New experiences. The policy that trains has just scored them: nothing has moved before the first update.

        That holds in asynchronous mode too, where an older policy generated them.
        """
        self._policy_has_moved = False

    def begin(self, info: StepInfo) -> StepInputs:
        """Look at all micro-batches of an optimizer step before its first forward pass (collective)."""
        weights, joint_weights = self._weights(info.micro_batches)
        return StepInputs(
            normalizers=dict(info),
            anchor_seed=self.head_trainer.anchor_seed,
            policy_has_moved=self._policy_has_moved,
            weights=weights,
            joint_weights=joint_weights,
            coefficient=None
            if self.joint is None
            else self.joint.begin(info.micro_batches, policy_has_moved=self._policy_has_moved),
        )

    def _weights(self, experiences: list[Any]) -> tuple[AdvantageWeights | None, AdvantageWeights | None]:
        """The samples' weights in the head's loss, and in the joint cross-entropy."""
        if not self.mtp.advantage.is_on:
            return None, None
        for experience in experiences:
            experience.to_device(torch.cuda.current_device())
        weights = step_weights(self.mtp.advantage, experiences, _counts(self.head_trainer.row_counts))
        self._advantage_metrics.add(weights, experiences)
        if self.mtp.regime != "joint_ce":
            return weights, None
        # the joint cross-entropy counts all predicted tokens, whatever the head's own objective counts
        predicted = _counts(self.head_trainer.predicted_tokens)
        return weights, step_weights(self.mtp.advantage, experiences, predicted)

    def end(self, *, is_optimizer_step: bool, has_dynamic_batches: bool) -> None:
        """After the policy's part of a micro-batch, update the head where an optimizer step ends.

        Args:
            is_optimizer_step: it was the optimizer step's last.
            has_dynamic_batches: OpenRLHF steps at the last only; otherwise the head's `step` is called each time and
                acts at the boundary that `HeadTrainer.accumulate` set.
        """
        if is_optimizer_step or not has_dynamic_batches:
            self.head_trainer.step()
        if is_optimizer_step:
            self._policy_has_moved = True
            if self.joint is not None:
                self.joint.metrics.end_step(losses_add_up=has_dynamic_batches)

    def drain(self) -> dict[str, float]:
        """The metrics of head and joint term since the last call (collective)."""
        row = self.head_trainer.drain()
        if self.mtp.advantage.is_on:
            row.update(self._advantage_metrics.drain())
        if self.joint is not None:
            row.update(self.joint.metrics.drain())
            row[metrics.TIME_MTP_S] += self.joint.stopwatch.read()
        return row

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint keeps beside the head's engine."""
        joint = {} if self.joint is None else {"coefficient": self.joint.state()}
        return {**self.head_trainer.state(), **joint}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`; a regime may have been changed since."""
        self.head_trainer.load_state(state)
        if self.joint is not None and "coefficient" in state:
            self.joint.load_state(state["coefficient"])


def _counts(count: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any], Tensor]:
    return lambda experience: count(
        action_positions(experience.action_mask), experience.attention_mask.long()
    )
