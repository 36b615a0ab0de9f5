"""What the head does within one of OpenRLHF's training steps: its own loss, and in the joint regimes a term for the
policy's.

    begin      first micro-batch of an optimizer step: advantage weights; OCC's coefficient, if there are several
    observe    the policy's forward pass is done: the head's loss and backward on it, the joint regimes' term
    term       the policy's loss is complete: what is added to it
    end        the micro-batch is done: after the optimizer step's last one the head takes its step
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.losses.alignment import action_positions
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.losses.targets import from_logits
from openrlhf_mtp.training.advantage_weights import SampleWeights
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.joint.term import JointTerm, Rollout
from openrlhf_mtp.training.observed_policy import Observation, ObservedPolicy
from openrlhf_mtp.training.stopwatch import Stopwatch
from openrlhf_mtp.upstream.openrlhf.optimizer_step import StepInfo


def rollout_of(experience: Any) -> Rollout:
    """The parts of OpenRLHF's experience that a policy loss reads."""
    return Rollout(experience.action_log_probs, experience.advantages, experience.rollout_log_probs)


def head_batch(
    trainer: HeadTrainer, experience: Any, seen: Observation, row_weight: Tensor | None = None
) -> HeadBatch:
    """What the head's loss needs of OpenRLHF's experience and the policy's forward pass on it."""
    return HeadBatch(
        sequences=experience.sequences,
        attention_mask=experience.attention_mask,
        action_mask=action_positions(experience.action_mask),
        hidden=seen.hidden.detach(),
        targets=from_logits(seen.logits.detach(), seen.packed_position, trainer.trunk.config.vocab_size),
        row_weight=row_weight,
    )


class HeadStep:
    """The head's part of every micro-batch.

    Args:
        mtp: the job's settings.
        trainer: the head's trainer.
        actor: the policy.
        policy_loss: OpenRLHF's `PolicyLoss` of this run.
    """

    def __init__(
        self, mtp: MTPSettings, trainer: HeadTrainer, actor: ObservedPolicy, policy_loss: Callable[..., Any]
    ) -> None:
        self.trainer = trainer
        self.actor = actor
        self.weights = SampleWeights(mtp.advantage)
        # the joint cross-entropy counts all predicted tokens, whatever the head's own objective counts
        has_own_weights = self.weights.is_on and mtp.regime == "joint_ce"
        self.joint_weights = SampleWeights(mtp.advantage) if has_own_weights else None
        self.joint = JointTerm(mtp, trainer, policy_loss) if mtp.is_joint else None
        self._term: Tensor | None = None
        self._policy_has_moved = True
        self._stopwatch = Stopwatch()

    def begin_rollout_batch(self) -> None:
        """New experiences. The policy that trains has just scored them: nothing has moved before the first update.

        That holds in asynchronous mode too, where an older policy generated them.
        """
        self._policy_has_moved = False

    def begin(self, info: StepInfo) -> None:
        """Look at all micro-batches of an optimizer step before its first one (collective)."""
        tracked = self.joint if self.joint is not None and self.joint.is_tracked else None
        if info.position > 0 or not (self.weights.is_on or tracked):
            return
        device = torch.cuda.current_device()
        for experience in info.micro_batches:
            experience.to_device(device)
        if self.weights.is_on:
            self.weights.begin_step(info.micro_batches, self._counts(self.trainer.row_counts))
            if self.joint_weights is not None:
                self.joint_weights.begin_step(info.micro_batches, self._counts(self.trainer.predicted_tokens))
        if tracked is None:
            return
        if not self._policy_has_moved:
            tracked.track(tracked.zero_sums())
        elif len(info.micro_batches) > 1:
            with self._stopwatch.running():
                tracked.track(self._sums_ahead(tracked, info.micro_batches))

    @torch.no_grad()
    def _sums_ahead(self, joint: JointTerm, experiences: list[Any]) -> Tensor:
        """OCC's sums over micro-batches whose backward has not begun: one more forward pass over each.

        The coefficient multiplies the first micro-batch's backward already and depends on the last one's tokens. The
        alternative without this pass would keep the graphs of all micro-batches.
        """
        total = joint.zero_sums()
        for experience in experiences:
            total = total + self._sums_of(joint, experience)
        return total

    def _sums_of(self, joint: JointTerm, experience: Any) -> Tensor:
        seen = self.actor.observe(experience)
        batch = self._batch(experience, seen)
        anchors = self.trainer.anchors(batch)
        head = joint.head_log_probs(batch, seen.hidden, anchors)
        return joint.sums(seen.log_probs, experience.action_mask, rollout_of(experience), head)

    @staticmethod
    def _counts(count: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any], Tensor]:
        return lambda experience: count(
            action_positions(experience.action_mask), experience.attention_mask.long()
        )

    def _batch(self, experience: Any, seen: Observation) -> HeadBatch:
        row_weight = self.weights.of(experience) if self.weights.is_on else None
        return head_batch(self.trainer, experience, seen, row_weight)

    def observe(self, experience: Any, info: StepInfo, seen: Observation) -> None:
        """Train the head on the policy's forward pass; prepare the joint term."""
        batch = self._batch(experience, seen)
        # like OpenRLHF's policy loss: one mean over the tokens of the whole optimizer step, whatever the split
        normalizer = info["batch_num_tokens"] / info["dp_size"]
        output = self.trainer.accumulate(batch, normalizer, completes_step=info.completes_step)
        joint = self.joint
        if joint is None:
            return
        with self._stopwatch.running():
            self._prepare_term(joint, batch, seen, experience, info, output)

    def _prepare_term(
        self,
        joint: JointTerm,
        batch: HeadBatch,
        seen: Observation,
        experience: Any,
        info: StepInfo,
        output: MTPLossOutput,
    ) -> None:
        # decided alike on every rank: the released code's coefficient, and whether it is 0, is each rank's own
        is_watched = self._policy_has_moved and (not joint.is_tracked or joint.is_released_code)
        if is_watched or joint.coefficient is None or joint.coefficient.any():
            head = joint.head_log_probs(batch, seen.hidden, output.anchors, known=output.records.log_q)
            rollout = rollout_of(experience)
            if is_watched:
                joint.watch(seen.log_probs, rollout, head)
            if joint.is_tracked and joint.coefficient is None:
                joint.track(joint.sums(seen.log_probs, experience.action_mask, rollout, head))
            row_weight = None if self.joint_weights is None else self.joint_weights.of(experience)
            self._term = joint.term(head, rollout, row_weight, info)

    def term(self) -> Tensor | None:
        """What is added to the policy's loss, once."""
        term, self._term = self._term, None
        return term

    def end(self, *, is_optimizer_step: bool, is_boundary_known: bool) -> None:
        """After the policy's micro-batch.

        Args:
            is_optimizer_step: it was the optimizer step's last.
            is_boundary_known: OpenRLHF steps only then (dynamic batches); otherwise DeepSpeed counts for itself.
        """
        if is_optimizer_step or not is_boundary_known:
            self.trainer.step()
        if is_optimizer_step:
            self._policy_has_moved = True
            if self.joint is not None:
                self.joint.end_step(losses_add_up=is_boundary_known)

    def drain(self) -> dict[str, float]:
        """Metrics since the last call (collective)."""
        row: dict[str, float] = {}
        if self.weights.is_on:
            row.update(self.weights.drain())
        if self.joint is not None:
            row.update(self.joint.drain())
        row["time/mtp_s"] = self._stopwatch.read()
        return row

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the head's engine."""
        tracker = {} if self.joint is None else {"coefficient": self.joint.tracker.state()}
        return {**self.trainer.state(), **tracker}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`; a regime may have been changed since."""
        self.trainer.load_state(state)
        if self.joint is not None and "coefficient" in state:
            self.joint.tracker.load_state(state["coefficient"])
