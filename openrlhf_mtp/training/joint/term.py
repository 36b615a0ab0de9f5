"""The joint regimes: a loss on the head's log-probs that reaches the policy, times the coefficient.

    joint_ce       L_j = -log q^j of each action token, a mean over tokens
    joint_policy   L_j = the run's own policy loss (clipping, dual clip, corrections, GSPO), with log q^j of the same
                   action token in place of the policy's log-prob, against the same old log-probs and advantages

The policy's loss becomes L_RL + (1/k) sum_j lambda_j L_j (OCC, arXiv 2605.28184, with k = 1 there). The head is a fixed
function here: its parameters follow `mtp.objective` and nothing else, so that what keeps drafts accepted and
what flows into the policy are set apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding as lookup

from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.losses.alignment import Anchors
from openrlhf_mtp.runlog.metrics import MTP_COEFFICIENT, OCC_ALIGNMENT, OCC_MAGNITUDE, OCC_SIGN, depth_metric
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.joint.coefficient import CoefficientTracker
from openrlhf_mtp.training.joint.occ import occ_sums, released_code_sums
from openrlhf_mtp.training.joint.token_log_probs import token_log_probs
from openrlhf_mtp.training.reduce import all_reduce_sum


class HeadLogProbs(NamedTuple):
    """The head's log-probs of action tokens in OpenRLHF's layout: column t - 1 holds the value for token t.

    Attributes:
        values: log q^j [k, B, T - 1], nat; 0 where depth j predicts nothing.
        mask: where it does [k, B, T - 1].
    """

    values: Tensor
    mask: Tensor


class Rollout(NamedTuple):
    """What a policy loss needs beside log-probs, in OpenRLHF's layout [B, T - 1].

    Attributes:
        old_log_probs: under the policy that generated the tokens.
        advantages: of the tokens.
        rollout_log_probs: as the engine reported them; None when not kept.
    """

    old_log_probs: Tensor
    advantages: Tensor
    rollout_log_probs: Tensor | None


class JointTerm:
    """Makes the term that is added to the policy's loss, and tracks its coefficient.

    Args:
        mtp: the job's settings; its regime is a joint one.
        trainer: the head's trainer.
        policy_loss: OpenRLHF's `PolicyLoss` of this run.
    """

    def __init__(self, mtp: MTPSettings, trainer: HeadTrainer, policy_loss: Callable[..., Any]) -> None:
        self.mtp = mtp
        self.trainer = trainer
        self.policy_loss = policy_loss
        self.tracker = CoefficientTracker(mtp.coefficient, mtp.depths)
        self.coefficient: Tensor | None = None
        self._terms: Tensor | None = None
        self._rows: list[dict[str, float]] = []
        self._losses: list[Tensor] = []  # of this optimizer step's micro-batches
        self._step_losses: list[Tensor] = []

    @property
    def is_tracked(self) -> bool:
        """Whether the coefficient depends on the optimizer step's tokens."""
        return self.mtp.coefficient.kind == "occ"

    @property
    def is_released_code(self) -> bool:
        """The public code's form of OCC: depth 1 only, the coefficient inside the advantage."""
        return self.is_tracked and self.mtp.coefficient.occ_variant == "released_code"

    def head_log_probs(
        self, batch: HeadBatch, attached_hidden: Tensor, anchors: Anchors, known: Tensor | None = None
    ) -> HeadLogProbs:
        """log q^j of the action tokens; gradients reach hidden states, embedding and output head of the policy.

        Args:
            batch: the micro-batch.
            attached_hidden: the policy's hidden states, attached to its graph [B, T, H].
            anchors: where the chain runs.
            known: these log-probs by anchor and depth [N, k], if the head's own loss has computed them already.
        """
        trainer = self.trainer
        with trainer.trunk.weights(sharded=trainer.trunk_sharded) as (embedding, weight):
            read = [lookup(tokens, embedding) for tokens in anchors.reads]
            states = fixed_function(trainer.head)(
                attached_hidden, read, batch.position_ids, batch.segment_ids, trainer.depths, anchors.grid
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

    def track(self, sums: Tensor) -> None:
        """Set the optimizer step's coefficient from the sums of its tokens on this rank (collective)."""
        if self.is_released_code:
            self.coefficient = self.tracker.released_code(sums)
        else:
            sums = all_reduce_sum(sums)
            self.coefficient = self.tracker.paper(sums)
            self._keep_terms(sums)

    def watch(self, log_probs: Tensor, rollout: Rollout, head: HeadLogProbs) -> None:
        """Add a micro-batch to OCC's two terms where the coefficient does not need them, to compare regimes."""
        sums = occ_sums(log_probs.detach(), rollout.old_log_probs, head.values.detach(), head.mask)
        self._terms = sums if self._terms is None else self._terms + sums

    def zero_sums(self) -> Tensor:
        """The sums of no tokens at all."""
        shape = (2,) if self.is_released_code else (3, self.trainer.depths)
        return torch.zeros(shape, dtype=torch.float64, device=torch.cuda.current_device())

    def sums(self, log_probs: Tensor, action_mask: Tensor, rollout: Rollout, head: HeadLogProbs) -> Tensor:
        """What a micro-batch adds to the coefficient's sums."""
        values, old = head.values.detach(), rollout.old_log_probs
        if self.is_released_code:
            # positions without a log-prob count as no difference, as padding does there
            return released_code_sums(
                log_probs.detach(), old, torch.where(head.mask, values, old), action_mask
            )
        return occ_sums(log_probs.detach(), old, values, head.mask)

    def term(
        self, head: HeadLogProbs, rollout: Rollout, row_weight: Tensor | None, info: dict[str, Any]
    ) -> Tensor:
        """(1/k) sum_j lambda_j L_j of a micro-batch (scalar), normalized like OpenRLHF's policy loss by `info`."""
        coefficient = self.coefficient if self.is_tracked else self.tracker.fixed()
        assert coefficient is not None, "track() comes before the first term of an optimizer step"
        share = self.mtp.anchor_fraction
        total = head.values.new_zeros(())
        unweighted = head.values.new_zeros(())
        for values, mask, factor in zip(head.values, head.mask, coefficient.tolist(), strict=True):
            if self.mtp.regime == "joint_ce":
                weighted = values * mask if row_weight is None else values * mask * row_weight[:, None]
                loss = -weighted.sum() / info["batch_num_tokens"] * info["dp_size"] / share
            else:
                inside = rollout.advantages * factor if self.is_released_code else rollout.advantages
                loss = self._policy_loss(values, mask, rollout._replace(advantages=inside), info)
            unweighted += loss.detach() / self.trainer.depths
            scale = (factor != 0.0) if self.is_released_code else factor / self.trainer.depths
            total = total + scale * loss
        self._losses.append(unweighted)
        return total

    def _policy_loss(self, values: Tensor, mask: Tensor, rollout: Rollout, info: dict[str, Any]) -> Tensor:
        loss: Tensor = self.policy_loss(
            values,
            rollout.old_log_probs,
            rollout.advantages,
            action_mask=mask.to(values.dtype),
            rollout_log_probs=rollout.rollout_log_probs,
            **info,
        )[0]
        # a mean over all tokens misses those that were not chosen; a mean over each sequence does not
        is_token_mean: bool = self.policy_loss.token_level_loss  # type: ignore[attr-defined]
        return loss / self.mtp.anchor_fraction if is_token_mean else loss

    def _keep_terms(self, sums: Tensor) -> None:
        alignment, magnitude, tokens = sums.cpu()
        if not tokens.any():
            return  # nothing has moved yet, so nothing was measured
        row = {}
        for j in range(1, self.trainer.depths + 1):
            count = max(1.0, float(tokens[j - 1]))
            row[depth_metric(OCC_ALIGNMENT, j)] = float(alignment[j - 1]) / count
            row[depth_metric(OCC_MAGNITUDE, j)] = float(magnitude[j - 1]) / count
            row[depth_metric(OCC_SIGN, j)] = float(alignment[j - 1].sign())
        self._rows.append(row)

    def end_step(self, *, losses_add_up: bool) -> None:
        """The optimizer step is done: keep its coefficient for the metrics, forget it for the next.

        Args:
            losses_add_up: the step's loss is the sum of its micro-batches' losses; otherwise their mean.
        """
        coefficient = self.coefficient if self.is_tracked else self.tracker.fixed()
        assert coefficient is not None
        if self._terms is not None:
            terms, self._terms = self._terms, None
            self._keep_terms(all_reduce_sum(terms))
        row = {
            depth_metric(MTP_COEFFICIENT, j): value for j, value in enumerate(coefficient.tolist(), start=1)
        }
        self._rows.append({MTP_COEFFICIENT: float(coefficient.mean()), **row})
        if self._losses:
            losses = torch.stack(self._losses)
            self._step_losses.append(losses.sum() if losses_add_up else losses.mean())
            self._losses = []
        self.coefficient = None

    def drain(self) -> dict[str, float]:
        """Metrics since the last call, each a mean over optimizer steps, and start anew (collective)."""
        rows, self._rows = self._rows, []
        loss = torch.tensor([sum(map(float, self._step_losses)), len(self._step_losses)], dtype=torch.float64)
        self._step_losses = []
        loss = all_reduce_sum(loss)
        names = sorted({name for row in rows for name in row})
        means = {}
        for name in names:
            values = [row[name] for row in rows if name in row]
            means[name] = sum(values) / len(values)
        means["mtp/joint_loss"] = float(loss[0] / loss[1].clamp(min=1.0))
        return means


def fixed_function(head: nn.Module) -> Callable[..., list[Tensor]]:
    """The head as a fixed function: gradients go through it to its inputs, never to its parameters."""
    constants = {name: tensor.detach() for name, tensor in [*head.named_parameters(), *head.named_buffers()]}

    def call(*inputs: object) -> list[Tensor]:
        states: list[Tensor] = torch.func.functional_call(head, constants, inputs)
        return states

    return call
