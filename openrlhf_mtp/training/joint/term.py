"""The joint regimes: a loss on the head's log-probs that reaches the policy, times the coefficient.

    joint_ce       L_j = -log q^j of each action token, a mean over tokens
    joint_policy   L_j = the run's own policy loss (clipping, dual clip, corrections, GSPO), with log q^j of the same
                   action token in place of the policy's log-prob, against the same old log-probs and advantages

The policy's loss becomes L_RL + (1/k) sum_j lambda_j L_j (OCC, arXiv 2605.28184, with k = 1 there). The head is a fixed
function here: the term trains the policy, and `mtp.objective` trains the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding as lookup

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.heads.constant import constant
from openrlhf_mtp.losses.alignment import Anchors
from openrlhf_mtp.losses.kernels.token_log_probs import token_log_probs
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.joint.coefficient import (
    ActionTokens,
    Coefficient,
    FixedCoefficient,
    HeadLogProbs,
    Scored,
)
from openrlhf_mtp.training.joint.metrics import JointMetrics
from openrlhf_mtp.training.joint.occ import OCC
from openrlhf_mtp.training.joint.occ_released import ReleasedOCC
from openrlhf_mtp.training.observed_policy import Observation, ObservedPolicy
from openrlhf_mtp.training.step_inputs import StepCoefficient, StepInputs, Undecided
from openrlhf_mtp.training.stopwatch import Stopwatch


def action_tokens(experience: Any, log_probs: Tensor) -> ActionTokens:
    """The action tokens of one of OpenRLHF's micro-batches, with their log-probs [B, T - 1] under the policy now."""
    return ActionTokens(
        mask=experience.action_mask,
        log_probs=log_probs,
        old_log_probs=experience.action_log_probs,
        advantages=experience.advantages,
        rollout_log_probs=experience.rollout_log_probs,
    )


class JointTerm:
    """Makes the term that is added to the policy's loss.

    Args:
        mtp: the job's settings; its regime is a joint one.
        head_trainer: the trainer of the head that the log-probs come from.
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
        self.policy = policy
        self.policy_loss = policy_loss
        self.metrics = JointMetrics(mtp.depths)
        self.coefficient = build_coefficient(mtp)
        self.stopwatch = Stopwatch()

    def begin(self, micro_batches: Sequence[Any], *, policy_has_moved: bool) -> StepCoefficient | Undecided:
        """Decide lambda before an optimizer step's first micro-batch, if it can be decided then (collective).

        lambda multiplies the first micro-batch's backward and may depend on the last one's tokens. Several
        micro-batches are therefore scored ahead; keeping the graphs of all of them would be the alternative. A single
        one decides by the forward pass that it trains on.

        Args:
            micro_batches: OpenRLHF's, of the whole step on this rank.
            policy_has_moved: whether the policy was updated since it scored them.
        """
        coefficient = self.coefficient.after_move if policy_has_moved else self.coefficient.before_move
        if coefficient is None:
            if len(micro_batches) == 1:
                return Undecided()
            with self.stopwatch.running():
                coefficient = self.coefficient.decide(self._scored_ahead(micro_batches))
        self.metrics.add_coefficient(coefficient)
        return coefficient

    @torch.no_grad()
    def _scored_ahead(self, micro_batches: Sequence[Any]) -> list[Scored]:
        """Micro-batches whose backward has not begun, by one more forward pass over each."""
        scored = []
        for experience in micro_batches:
            experience.to_device(torch.cuda.current_device())
            seen = self.policy.observe(experience)
            anchors = seen.batch.anchors(
                self.mtp.depths, fraction=self.mtp.anchor_fraction, seed=self.head_trainer.anchor_seed
            )
            scored.append(Scored(action_tokens(experience, seen.log_probs), self.log_probs(seen, anchors)))
        return scored

    def term(
        self, experience: Any, seen: Observation, output: MTPLossOutput, inputs: StepInputs
    ) -> Tensor | None:
        """(1/k) sum_j lambda_j L_j of a micro-batch (scalar), normalized like OpenRLHF's policy loss.

        Args:
            experience: OpenRLHF's micro-batch.
            seen: the policy's forward pass on it.
            output: the head's own loss on it, which has computed the same log-probs already.
            inputs: what its optimizer step has fixed.

        Returns:
            None where the optimizer step's coefficient needs no term.
        """
        coefficient = inputs.coefficient
        assert coefficient is not None, "a joint regime's optimizer step begins with `begin`"
        if not coefficient.is_needed:
            return None
        with self.stopwatch.running():
            head_log_probs = self.log_probs(seen, output.anchors, known=output.records.log_q)
            scored = Scored(action_tokens(experience, seen.log_probs), head_log_probs)
            if self.coefficient.needs_occ_measured and inputs.policy_has_moved:
                self.metrics.measure_occ(scored)
            if isinstance(coefficient, Undecided):
                coefficient = self.coefficient.decide([scored])
                self.metrics.add_coefficient(coefficient)
            return self._weighted(coefficient, scored, inputs.joint_row_weight(experience), inputs)

    def _weighted(
        self, coefficient: StepCoefficient, scored: Scored, row_weight: Tensor | None, inputs: StepInputs
    ) -> Tensor:
        """(1/k) sum_j lambda_j L_j."""
        tokens, head_log_probs = scored
        total = head_log_probs.values.new_zeros(())
        unweighted = head_log_probs.values.new_zeros(())
        for j, (values, mask) in enumerate(zip(head_log_probs.values, head_log_probs.mask, strict=True)):
            if self.mtp.regime == "joint_ce":
                loss = self._cross_entropy(values, mask, row_weight, inputs)
            else:
                scaled = tokens._replace(advantages=tokens.advantages * coefficient.inside[j])
                loss = self._policy_loss(values, mask, scaled, inputs)
            unweighted += loss.detach() / self.mtp.depths
            total = total + coefficient.outside[j] * loss
        self.metrics.add_loss(unweighted)
        return total

    def _cross_entropy(
        self, values: Tensor, mask: Tensor, row_weight: Tensor | None, inputs: StepInputs
    ) -> Tensor:
        weighted = values * mask if row_weight is None else values * mask * row_weight[:, None]
        tokens, ranks = inputs.normalizers["batch_num_tokens"], inputs.normalizers["dp_size"]
        loss: Tensor = -weighted.sum() / tokens * ranks / self.mtp.anchor_fraction
        return loss

    def _policy_loss(self, values: Tensor, mask: Tensor, tokens: ActionTokens, inputs: StepInputs) -> Tensor:
        loss: Tensor = self.policy_loss(
            values,
            tokens.old_log_probs,
            tokens.advantages,
            action_mask=mask.to(values.dtype),
            rollout_log_probs=tokens.rollout_log_probs,
            **inputs.normalizers,
        )[0]
        # `anchor_fraction` drops tokens: a mean over all tokens is rescaled, a mean over each sequence is not
        is_token_mean: bool = self.policy_loss.token_level_loss  # type: ignore[attr-defined]
        return loss / self.mtp.anchor_fraction if is_token_mean else loss

    def log_probs(self, seen: Observation, anchors: Anchors, known: Tensor | None = None) -> HeadLogProbs:
        """log q^j of the action tokens; gradients reach hidden states, embedding and output head of the policy.

        Args:
            seen: the policy's forward pass.
            anchors: where the chain runs.
            known: these log-probs by anchor and depth [N, k], if the head's own loss has computed them already.
        """
        trainer = self.head_trainer
        with trainer.trunk.weights(sharded=trainer.trunk_sharded) as (embedding, weight):
            states = constant(trainer.head)(
                seen.attached_hidden,
                [lookup(tokens, embedding) for tokens in anchors.reads],
                seen.batch.position_ids,
                seen.batch.segment_ids,
                trainer.depths,
                anchors.grid,
            )
            counted, place = anchors.mask.t(), anchors.place  # depth by depth [k, N]
            rows = [z.flatten(0, 1)[place[counts]] for z, counts in zip(states, counted, strict=True)]
            vocab = trainer.trunk.config.vocab_size
            log_q = token_log_probs(
                torch.cat(rows),
                weight if len(weight) == vocab else weight[:vocab],
                anchors.tokens.t()[counted],
                trainer.temperature,
                known=None if known is None else known.t()[counted],
            )
        where = (counted.nonzero()[:, 0], anchors.column.t()[counted])
        shape = (trainer.depths, *anchors.columns)
        values = log_q.new_zeros(shape).flatten(1).index_put(where, log_q)
        mask = torch.zeros(shape, dtype=torch.bool, device=log_q.device).flatten(1)
        mask = mask.index_put(where, log_q.new_ones(()).bool())
        values = values.view(shape)
        return HeadLogProbs(values, values.detach(), mask.view(shape))

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""
        return self.coefficient.state()

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore what `state()` returned."""
        self.coefficient.load_state(state)


def build_coefficient(mtp: MTPSettings) -> Coefficient:
    """The coefficient that `mtp.coefficient` asks for."""
    settings = mtp.coefficient
    if settings.kind == "fixed":
        return FixedCoefficient(settings, mtp.depths)
    if settings.occ_variant == "released_code":
        return ReleasedOCC(settings, mtp.depths)
    return OCC(settings, mtp.depths)
