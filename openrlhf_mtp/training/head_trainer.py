"""Train the head on hidden states of the policy: shared by the pre-RL stage and by RL in every regime.

Here the policy is a constant (OCC's regime "detach", arXiv 2605.28184): the hidden states come detached from
`observed_policy`, `Trunk.constants` detaches embedding and output head, and the head has a DeepSpeed engine of its own.
The joint regimes' addition is in `joint.term`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import embedding as lookup

from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.acceptance import acceptance_ratio
from openrlhf_mtp.losses.alignment import anchor_mask
from openrlhf_mtp.losses.mixture import mixture
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput, OutputHead, Sums, depth_weights, mtp_loss
from openrlhf_mtp.losses.replayed_acceptance import (
    ReplayedCounts,
    replay_acceptance,
    replay_block_acceptance,
)
from openrlhf_mtp.losses.targets import from_hidden
from openrlhf_mtp.losses.types import Objective, anchor_counts
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_metrics import HeadMetrics
from openrlhf_mtp.training.schedule import Schedule
from openrlhf_mtp.training.stopwatch import Stopwatch
from openrlhf_mtp.training.trunk import Trunk

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.objective import ObjectiveSettings


class HeadTrainer:
    """Loss, backward and update of the head, and the head's metrics.

    Args:
        engine: DeepSpeed engine around an `MTPHead`; None in the regime "frozen", which only measures.
        head: the head itself.
        trunk: where embedding and output head are.
        depths: number of depths k.
        settings: what is minimized, and its schedule.
        temperature: the rollout's sampling temperature, at which all distributions are taken.
        trunk_sharded: true when ZeRO-3 shards the policy.
        seed: of the choice of anchors.
        verifies_blocks: the rollout engines verify drafts as blocks, which the replay of their acceptance follows.
    """

    def __init__(
        self,
        *,
        engine: Any | None,
        head: MTPHead,
        trunk: Trunk,
        depths: int,
        settings: ObjectiveSettings,
        temperature: float,
        trunk_sharded: bool = False,
        seed: int = 0,
        verifies_blocks: bool = False,
    ) -> None:
        self.engine = engine
        self.head = head
        self.trunk = trunk
        self.depths = depths
        self.settings = settings
        self.schedule = Schedule(settings)
        self.temperature = temperature
        self.trunk_sharded = trunk_sharded
        self.seed = seed
        self.verifies_blocks = verifies_blocks
        self.steps = 0
        self._sums: list[Sums] = []  # of all micro-batches since metrics were read
        self._replayed: list[ReplayedCounts] = []
        self._step_sums: list[Sums] = []  # of this head step's, while they can end the warm-up
        self._stopwatch = Stopwatch()

    @property
    def anchor_seed(self) -> int:
        """Seed of this head step's choice of anchors."""
        return self.seed * 1_000_003 + self.steps

    def accumulate(
        self,
        batch: HeadBatch,
        normalizer: float | Tensor,
        *,
        anchor_seed: int | None = None,
        row_weight: Tensor | None = None,
        completes_step: bool | None = None,
    ) -> MTPLossOutput:
        """Forward and backward of one micro-batch; the gradient is added to the head's.

        Args:
            batch: the micro-batch.
            normalizer: the summed loss is divided by this. The same value for all micro-batches of an optimizer
                step makes the update independent of how the batch was split.
            anchor_seed: seed of the choice of anchors; None takes this head step's.
            row_weight: how much each sample weighs in the loss [B], 1 on average; None is 1.
            completes_step: whether it is the optimizer step's last, which in RL may have fewer micro-batches than
                DeepSpeed counts to; None lets DeepSpeed count.
        """
        with self._stopwatch.running():
            with torch.set_grad_enabled(self.engine is not None):
                output = self.loss(batch, anchor_seed=anchor_seed, row_weight=row_weight)
            if self.engine is not None:
                if completes_step is not None and self.engine.managed_gradient_accumulation():
                    self.engine.set_gradient_accumulation_boundary(completes_step)
                self.engine.backward(output.loss_sum / normalizer)
            self._keep_sums(output)
        return output

    def _keep_sums(self, output: MTPLossOutput) -> None:
        sums = output.sums._replace(loss_sum=output.loss_sum.detach())
        self._sums.append(sums)
        if self.engine is not None and self.schedule.watches(self.steps):
            self._step_sums.append(sums)
        if output.anchors.fraction == 1.0:  # a replay needs every anchor of a response
            self._replayed.append(self.replay(output))

    def replay(self, output: MTPLossOutput) -> ReplayedCounts:
        """The engine's counters on a micro-batch, all of whose anchors are measured, as its text lets expect them."""
        records, anchors = output.records, output.anchors
        if self.verifies_blocks:
            return replay_block_acceptance(records.log_q - records.log_p, anchors.mask, anchors.index)
        accept = acceptance_ratio(records.log_q, records.log_p)
        return replay_acceptance(accept, anchors.mask, anchors.index)

    def row_counts(self, action_mask: Tensor, segment_ids: Tensor) -> Tensor:
        """How much of the current objective each row of a micro-batch is: positions [B, T], [B, T] -> [B]."""
        mask = anchor_mask(action_mask, segment_ids, self.depths)
        weight = depth_weights(self.depths, self.settings.depth_decay).to(mask.device)
        counts = anchor_counts(self._loss_function, mask.flatten(0, 1), weight)
        return counts.view(mask.shape[:2]).sum(1)

    def predicted_tokens(self, action_mask: Tensor, segment_ids: Tensor) -> Tensor:
        """Action tokens that the depths predict in each row, over all depths: positions [B, T], [B, T] -> [B]."""
        return anchor_mask(action_mask, segment_ids, self.depths).sum((1, 2))

    @property
    def _loss_function(self) -> Objective:
        return mixture(self.schedule.at(self.steps), OBJECTIVES)

    def loss(
        self, batch: HeadBatch, *, anchor_seed: int | None = None, row_weight: Tensor | None = None
    ) -> MTPLossOutput:
        """The summed loss of a micro-batch with the current objective."""
        module = self.head if self.engine is None else self.engine
        seed = self.anchor_seed if anchor_seed is None else anchor_seed
        anchors = batch.anchors(self.depths, fraction=self.settings.anchor_fraction, seed=seed)
        with self.trunk.constants(sharded=self.trunk_sharded) as (embedding, output_weight):
            states = module(
                batch.hidden,
                [lookup(tokens, embedding) for tokens in anchors.reads],
                batch.position_ids,
                batch.segment_ids,
                self.depths,
                anchors.grid,
            )
            vocab_size = self.trunk.config.vocab_size
            return mtp_loss(
                states,
                anchors,
                batch.targets or from_hidden(batch.hidden, output_weight, self.temperature, vocab_size),
                OutputHead.of(output_weight, self.temperature, vocab_size=vocab_size),
                self._loss_function,
                row_weight=row_weight,
                depth_decay=self.settings.depth_decay,
            )

    def step(self) -> None:
        """One optimizer step of the head, at DeepSpeed's gradient-accumulation boundary; at once if it keeps none."""
        if self.engine is None:
            return
        with self._stopwatch.running():
            is_managed = self.engine.managed_gradient_accumulation()
            boundary = not is_managed or self.engine.is_gradient_accumulation_boundary()
            self.engine.step()
            if boundary:
                self._update_schedule()
                self.steps += 1

    def _update_schedule(self) -> None:
        """Show the schedule this optimizer step's overlap, the same number on every rank."""
        sums, self._step_sums = self._step_sums, []
        if self.schedule.watches(self.steps):
            step = HeadMetrics(self.depths, sums)
            step.all_reduce()
            self.schedule.record(self.steps, step.mean_alpha())

    def drain(self) -> dict[str, float]:
        """Metrics since the last call, over all data-parallel ranks; reset them (collective)."""
        kept = HeadMetrics(self.depths, self._sums, self._replayed)
        self._sums, self._replayed = [], []
        kept.all_reduce()
        row = kept.metrics()
        row[metrics.TIME_MTP_S] = self._stopwatch.read()
        if self.engine is not None:
            row[metrics.MTP_GRAD_NORM] = float(self.engine.get_global_grad_norm() or 0.0)
            row[metrics.MTP_LR] = float(self.engine.optimizer.param_groups[0]["lr"])
        metrics.validate(row)
        return row

    def state(self) -> dict[str, int]:
        """The state that a checkpoint keeps beside the engine's own."""
        return {"head_steps": self.steps, **self.schedule.state()}

    def load_state(self, state: dict[str, int]) -> None:
        """Restore what `state()` returned."""
        self.steps = state["head_steps"]
        self.schedule.load_state(state)
