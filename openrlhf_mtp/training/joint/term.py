"""The joint regimes: a loss on the head's log-probs that reaches the policy, times the coefficient.

    joint_ce       L_j = -log q^j of each action token, a mean over tokens
    joint_policy   L_j = the run's own policy loss (clipping, dual clip, corrections, GSPO), with log q^j of the same
                   action token in place of the policy's log-prob, against the same old log-probs and advantages

The policy's loss becomes L_RL + (1/k) sum_j lambda_j L_j (OCC, arXiv 2605.28184, with k = 1 there). The head is a fixed
function here and its parameters follow `mtp.objective`, so that what keeps drafts accepted and
what flows into the policy are set apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding as lookup

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.losses.alignment import Anchors
from openrlhf_mtp.losses.kernels.token_log_probs import token_log_probs
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.joint.coefficient import ActionTokens, Coefficient, FixedCoefficient, HeadLogProbs
from openrlhf_mtp.training.joint.metrics import JointMetrics
from openrlhf_mtp.training.joint.occ import OCC, occ_sums
from openrlhf_mtp.training.joint.occ_released import ReleasedOCC
from openrlhf_mtp.training.observed_policy import Observation
from openrlhf_mtp.training.step_inputs import StepInputs
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
        policy_loss: OpenRLHF's `PolicyLoss` of this run.
    """

    def __init__(self, mtp: MTPSettings, head_trainer: HeadTrainer, policy_loss: Callable[..., Any]) -> None:
        self.mtp = mtp
        self.head_trainer = head_trainer
        self.policy_loss = policy_loss
        self.metrics = JointMetrics(mtp.depths)
        self.coefficient = build_coefficient(mtp, self.metrics)
        self.stopwatch = Stopwatch()

    def coefficient_ahead(
        self, *, policy_has_moved: bool, sums_ahead: Callable[[], Tensor] | None
    ) -> Tensor | None:
        """lambda [k] at the start of an optimizer step (collective).

        Args:
            policy_has_moved: whether an update was taken since the rollout.
            sums_ahead: adds up the sums of all its micro-batches, one more forward pass over each; unset where there is
                one micro-batch, whose own forward pass will do.

        Returns:
            None if the first micro-batch's `term` makes it.
        """
        coefficient = self.coefficient.ahead(policy_has_moved=policy_has_moved)
        if coefficient is None and sums_ahead is not None:
            with self.stopwatch.running():
                coefficient = self.coefficient.of(sums_ahead())
        if coefficient is not None:
            self.metrics.add_coefficient(coefficient)
        return coefficient

    def sums(self, experience: Any, seen: Observation, anchors: Anchors) -> Tensor:
        """The addends of a micro-batch in the sums behind the coefficient."""
        head = self.log_probs(seen, anchors)
        return self.coefficient.sums(action_tokens(experience, seen.log_probs), head)

    def term(
        self, experience: Any, seen: Observation, output: MTPLossOutput, step: StepInputs
    ) -> Tensor | None:
        """(1/k) sum_j lambda_j L_j of a micro-batch (scalar), normalized like OpenRLHF's policy loss.

        Args:
            experience: OpenRLHF's micro-batch.
            seen: the policy's forward pass on it.
            output: the head's own loss on it, which has computed the same log-probs already.
            step: what its optimizer step has fixed.
        """
        with self.stopwatch.running():
            coefficient, has_moved = step.coefficient, step.policy_has_moved
            if not self.coefficient.is_needed(coefficient, policy_has_moved=has_moved):
                return None
            head = self.log_probs(seen, output.anchors, known=output.records.log_q)
            tokens = action_tokens(experience, seen.log_probs)
            if self.coefficient.measures_occ and has_moved:
                self.metrics.measure_terms(
                    occ_sums(tokens.log_probs, tokens.old_log_probs, head.values.detach(), head.mask)
                )
            if coefficient is None:
                coefficient = self.coefficient.of(self.coefficient.sums(tokens, head))
                self.metrics.add_coefficient(coefficient)
            return self._weighted(coefficient, head, tokens, step.joint_row_weight(experience), step)

    def _weighted(
        self,
        coefficient: Tensor,
        head: HeadLogProbs,
        tokens: ActionTokens,
        row_weight: Tensor | None,
        step: StepInputs,
    ) -> Tensor:
        """(1/k) sum_j lambda_j L_j."""
        inside, outside = self.coefficient.factors(coefficient)
        total = head.values.new_zeros(())
        unweighted = head.values.new_zeros(())
        for j, (values, mask) in enumerate(zip(head.values, head.mask, strict=True)):
            if self.mtp.regime == "joint_ce":
                loss = self._cross_entropy(values, mask, row_weight, step)
            else:
                scaled = tokens._replace(advantages=tokens.advantages * inside[j])
                loss = self._policy_loss(values, mask, scaled, step)
            unweighted += loss.detach() / self.mtp.depths
            total = total + outside[j] * loss
        self.metrics.add_loss(unweighted)
        return total

    def _cross_entropy(
        self, values: Tensor, mask: Tensor, row_weight: Tensor | None, step: StepInputs
    ) -> Tensor:
        weighted = values * mask if row_weight is None else values * mask * row_weight[:, None]
        tokens, ranks = step.normalizers["batch_num_tokens"], step.normalizers["dp_size"]
        loss: Tensor = -weighted.sum() / tokens * ranks / self.mtp.anchor_fraction
        return loss

    def _policy_loss(self, values: Tensor, mask: Tensor, tokens: ActionTokens, step: StepInputs) -> Tensor:
        loss: Tensor = self.policy_loss(
            values,
            tokens.old_log_probs,
            tokens.advantages,
            action_mask=mask.to(values.dtype),
            rollout_log_probs=tokens.rollout_log_probs,
            **step.normalizers,
        )[0]
        # a mean over all tokens misses those that were not chosen; a mean over each sequence does not
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
            states = fixed_function(trainer.head)(
                seen.attached_hidden,
                [lookup(tokens, embedding) for tokens in anchors.reads],
                seen.batch.position_ids,
                seen.batch.segment_ids,
                trainer.depths,
                anchors.grid,
            )
            rows = anchors.flat(torch.stack(states, dim=2))[anchors.mask]
            vocab = trainer.trunk.config.vocab_size
            log_q = token_log_probs(
                rows,
                weight if len(weight) == vocab else weight[:vocab],
                anchors.tokens[anchors.mask],
                trainer.temperature,
                known=None if known is None else known[anchors.mask],
            )
        where = (anchors.mask.nonzero()[:, 1], anchors.column[anchors.mask])
        shape = (trainer.depths, *anchors.columns)
        values = log_q.new_zeros(shape).flatten(1).index_put(where, log_q)
        mask = torch.zeros(shape, dtype=torch.bool, device=log_q.device).flatten(1)
        mask = mask.index_put(where, log_q.new_ones(()).bool())
        return HeadLogProbs(values.view(shape), mask.view(shape))

    def state(self) -> dict[str, list[float]]:
        """The state that a checkpoint keeps."""
        return self.coefficient.state()

    def load_state(self, state: dict[str, list[float]]) -> None:
        """Restore what `state()` returned."""
        self.coefficient.load_state(state)


def build_coefficient(mtp: MTPSettings, metrics: JointMetrics) -> Coefficient:
    """The coefficient that `mtp.coefficient` asks for."""
    settings = mtp.coefficient
    if settings.kind == "fixed":
        return FixedCoefficient(settings, mtp.depths)
    if settings.occ_variant == "released_code":
        return ReleasedOCC(settings, mtp.depths)
    return OCC(settings, mtp.depths, metrics)


def fixed_function(head: nn.Module) -> Callable[..., list[Tensor]]:
    """The head as a fixed function: gradients go through it to its inputs, never to its parameters."""
    constants = {name: tensor.detach() for name, tensor in [*head.named_parameters(), *head.named_buffers()]}

    def call(*inputs: object) -> list[Tensor]:
        states: list[Tensor] = torch.func.functional_call(head, constants, inputs)
        return states

    return call
