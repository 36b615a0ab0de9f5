"""Train the head on hidden states of the policy: shared by the pre-RL stage and by RL in every regime.

Here the policy is a constant: hidden states, embedding and output head are detached, and the head has an engine of its
own, so no gradient of this loss can reach the policy (OCC's regime "detach", arXiv 2605.28184). What the joint regimes
add on top is in `joint.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding as lookup

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.alignment import Anchors, anchor_mask, find_anchors
from openrlhf_mtp.losses.mixture import mixture
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput, OutputHead, depth_weights, mtp_loss
from openrlhf_mtp.losses.replayed_acceptance import ReplayedCounts, replay_acceptance
from openrlhf_mtp.losses.targets import from_hidden
from openrlhf_mtp.losses.types import Objective, anchor_counts
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_metrics import HeadMetrics
from openrlhf_mtp.training.schedule import Schedule
from openrlhf_mtp.training.stopwatch import Stopwatch
from openrlhf_mtp.training.trunk import Trunk


def promised(output: MTPLossOutput) -> ReplayedCounts:
    """What the engine is expected to have accepted on these responses, if it drafted with this head."""
    accept = (output.records.log_q - output.records.log_p).exp().clamp(max=1.0)
    return replay_acceptance(accept, output.anchors.mask, output.anchors.index)


class HeadTrainer:
    """Loss, backward and update of the head, and the head's metrics.

    Args:
        engine: DeepSpeed engine around an `MTPHead`; None in the regime "frozen", which only measures.
        head: the head itself.
        trunk: where embedding and output head are.
        depths: number of depths k.
        objective: what is minimized, and its schedule.
        temperature: the rollout's sampling temperature, at which all distributions are taken.
        trunk_sharded: true when ZeRO-3 shards the policy.
        seed: of the choice of anchors.
    """

    def __init__(
        self,
        *,
        engine: Any | None,
        head: MTPHead,
        trunk: Trunk,
        depths: int,
        objective: ObjectiveSettings,
        temperature: float,
        trunk_sharded: bool = False,
        seed: int = 0,
    ) -> None:
        self.engine = engine
        self.head = head
        self.trunk = trunk
        self.depths = depths
        self.objective = objective
        self.schedule = Schedule(objective)
        self.temperature = temperature
        self.trunk_sharded = trunk_sharded
        self.seed = seed
        self.steps = 0
        self._tally = HeadMetrics(depths)
        self._step_tally = HeadMetrics(depths)
        self._last: MTPLossOutput | None = None
        self._stopwatch = Stopwatch()

    @property
    def draw(self) -> int:
        """Number of this head step's choice of anchors."""
        return self.seed * 1_000_003 + self.steps

    def accumulate(
        self, batch: HeadBatch, normalizer: float | Tensor, *, completes_step: bool | None = None
    ) -> MTPLossOutput:
        """Forward and backward of one micro-batch; the gradient is added to the head's.

        Args:
            batch: the micro-batch.
            normalizer: the summed loss is divided by this. The same value for all micro-batches of an optimizer
                step makes the update independent of how the batch was split.
            completes_step: whether it is the optimizer step's last, which in RL may have fewer micro-batches than
                DeepSpeed counts to; None lets DeepSpeed count.
        """
        with self._stopwatch.running():
            with torch.set_grad_enabled(self.engine is not None):
                output = self.loss(batch)
            if self.engine is not None:
                if completes_step is not None and self.engine.managed_gradient_accumulation():
                    self.engine.set_gradient_accumulation_boundary(completes_step)
                self.engine.backward(output.loss_sum / normalizer)
            self._tally.add(output.sums)
            if self.schedule.watches(self.steps):
                self._step_tally.add(output.sums)
            if output.anchors.fraction == 1.0:
                self._tally.add_walk(promised(output))
        self._last = output
        return output

    def records(self, limit: int = 4096) -> dict[str, NDArray[Any]] | None:
        """Entropy (nat), overlap and greedy acceptance, [N, k] each, of the last micro-batch's first anchors on this
        rank, NaN where a depth does not count, and the response each anchor is from [N]. None before the first
        micro-batch."""
        if self._last is None:
            return None
        mask, records = self._last.anchors.mask[:limit], self._last.records
        figures = {"entropy": records.entropy, "alpha": records.alpha, "greedy": records.greedy}
        arrays = {"response": self._last.anchors.row[:limit].cpu().numpy()}
        return arrays | {
            name: values[:limit].float().masked_fill(~mask, torch.nan).cpu().numpy()
            for name, values in figures.items()
        }

    def row_counts(self, action_mask: Tensor, segment_ids: Tensor) -> Tensor:
        """How much of the current objective each row of a micro-batch is: positions [B, T], [B, T] -> [B]."""
        mask = anchor_mask(action_mask, segment_ids, self.depths)
        weight = depth_weights(self.depths, self.objective.depth_decay).to(mask.device)
        counts = anchor_counts(self._objective, mask.flatten(0, 1), weight)
        return counts.view(mask.shape[:2]).sum(1)

    def predicted_tokens(self, action_mask: Tensor, segment_ids: Tensor) -> Tensor:
        """Action tokens that the depths predict in each row, over all depths: positions [B, T], [B, T] -> [B]."""
        return anchor_mask(action_mask, segment_ids, self.depths).sum((1, 2))

    def anchors(self, batch: HeadBatch) -> Anchors:
        """The anchors that this head step trains on."""
        return find_anchors(
            batch.sequences,
            batch.action_mask,
            batch.segment_ids,
            self.depths,
            fraction=self.objective.anchor_fraction,
            draw=self.draw,
        )

    @property
    def _objective(self) -> Objective:
        return mixture(self.schedule.at(self.steps), OBJECTIVES)

    def loss(self, batch: HeadBatch) -> MTPLossOutput:
        """The summed loss of a micro-batch with the current objective."""
        module = self.head if self.engine is None else self.engine
        anchors = self.anchors(batch)
        with self.trunk.constants(sharded=self.trunk_sharded) as (embedding, output_weight):
            read = [lookup(tokens, embedding) for tokens in anchors.reads]
            states = module(
                batch.hidden, read, batch.position_ids, batch.segment_ids, self.depths, anchors.grid
            )
            vocab_size = self.trunk.config.vocab_size
            targets = batch.targets or from_hidden(batch.hidden, output_weight, self.temperature, vocab_size)
            return mtp_loss(
                states,
                anchors,
                targets,
                OutputHead.of(output_weight, self.temperature, vocab_size=vocab_size),
                self._objective,
                row_weight=batch.row_weight,
                depth_decay=self.objective.depth_decay,
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
                self._observe()
                self.steps += 1

    def _observe(self) -> None:
        """Show the schedule this optimizer step's overlap, the same number on every rank."""
        tally, self._step_tally = self._step_tally, HeadMetrics(self.depths)
        if self.schedule.watches(self.steps):
            tally.all_reduce()
            self.schedule.observe(self.steps, tally.mean_alpha())

    def drain(self) -> dict[str, float]:
        """Metrics since the last call, over all data-parallel ranks (collective), and start anew."""
        tally, self._tally = self._tally, HeadMetrics(self.depths)
        seconds = self._stopwatch.read()
        tally.all_reduce()
        row = tally.metrics()
        row["time/mtp_s"] = seconds
        if self.engine is not None:
            row["mtp/grad_norm"] = float(self.engine.get_global_grad_norm() or 0.0)
            row["mtp/lr"] = float(self.engine.optimizer.param_groups[0]["lr"])
        metrics.validate(row)
        return row

    def state(self) -> dict[str, int]:
        """What a checkpoint needs beside the engine's own state."""
        return {"head_steps": self.steps, **self.schedule.state()}

    def load_state(self, state: dict[str, int]) -> None:
        """Restore `state()`."""
        self.steps = state["head_steps"]
        self.schedule.load_state(state)
