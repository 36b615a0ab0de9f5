"""Train the head on hidden states of the policy: shared by the pre-RL stage and by RL (regimes frozen, detach).

The hidden states come in detached, the embedding and the output head are read detached, and the head has an
engine of its own, so no gradient can reach the policy (OCC's regime "detach", arXiv 2605.28184).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from openrlhf_mtp import metrics
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.losses.alignment import next_tokens
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput, mtp_loss
from openrlhf_mtp.training.tally import Tally
from openrlhf_mtp.training.trunk import Trunk


@dataclass(frozen=True)
class HeadBatch:
    """One micro-batch as the head sees it.

    Attributes:
        sequences: token ids [B, T].
        attention_mask: 1 for tokens, 0 for padding on either side [B, T].
        action_mask: true where the token at that position was sampled by the policy [B, T].
        hidden: the policy's last hidden states after the final norm, detached [B, T, H].
    """

    sequences: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Schedule:
    """Which objective is used at which optimiser step of the head."""

    objective: str
    kl_warmup_steps: int

    def at(self, step: int) -> str:
        """KL while the head is cold: e2e TV gives deep depths almost no gradient then (algorithms, section 2)."""
        return "kl" if step < self.kl_warmup_steps else self.objective


class HeadTrainer:
    """Loss, backward and update of the head, and the head's metrics.

    Args:
        engine: DeepSpeed engine around an `MTPHead`; None in the regime "frozen", which only measures.
        head: the head itself.
        trunk: where embedding and output head are.
        depths: number of depths k.
        schedule: the objective by head step.
        temperature: the rollout's sampling temperature, at which all distributions are taken.
        trunk_sharded: true when ZeRO-3 shards the policy.
    """

    def __init__(
        self,
        *,
        engine: Any | None,
        head: MTPHead,
        trunk: Trunk,
        depths: int,
        schedule: Schedule,
        temperature: float,
        trunk_sharded: bool = False,
    ) -> None:
        self.engine = engine
        self.head = head
        self.trunk = trunk
        self.depths = depths
        self.schedule = schedule
        self.temperature = temperature
        self.trunk_sharded = trunk_sharded
        self.steps = 0
        self._tally = Tally(depths)
        self._last: MTPLossOutput | None = None
        self._seconds = 0.0

    def accumulate(self, batch: HeadBatch, normalizer: float | Tensor) -> None:
        """Forward and backward of one micro-batch; the gradient is added to the head's.

        Args:
            batch: the micro-batch.
            normalizer: the summed loss is divided by this. The same value for all micro-batches of an optimiser
                step makes the update independent of how the batch was split.
        """
        start = time.perf_counter()
        if self.engine is None:
            with torch.no_grad():
                output = self.loss(batch)
        else:
            output = self.loss(batch)
            self.engine.backward(output.loss_sum / normalizer)
        self._tally.add(output)
        self._last = output
        self._seconds += time.perf_counter() - start

    def records(self, limit: int = 4096) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Entropy [N] (nats) and overlap [N, k] of the last micro-batch's first anchors on this rank, NaN where a
        depth does not count; None before the first micro-batch."""
        if self._last is None:
            return None
        mask = self._last.anchors.mask[:limit]
        alpha = self._last.records.alpha[:limit].float().masked_fill(~mask, torch.nan)
        entropy = self._last.records.entropy[:limit, 0].float()
        return entropy.cpu().numpy(), alpha.cpu().numpy()

    def loss(self, batch: HeadBatch) -> MTPLossOutput:
        """The summed loss of a micro-batch with the current objective."""
        module = self.head if self.engine is None else self.engine
        with self.trunk.weights(sharded=self.trunk_sharded) as (embedding, output_weight):
            tokens = next_tokens(batch.sequences, self.depths)
            segments = batch.attention_mask.long()
            positions = (segments.cumsum(-1) - 1).clamp(min=0)
            states = module(
                batch.hidden,
                [torch.nn.functional.embedding(tokens[..., j], embedding) for j in range(self.depths)],
                positions,
                segments,
                self.depths,
            )
            return mtp_loss(
                states,
                batch.hidden,
                output_weight,
                batch.sequences,
                batch.action_mask,
                segments,
                objective=self.schedule.at(self.steps),
                temperature=self.temperature,
                vocab_size=self.trunk.config.vocab_size,
            )

    def step(self) -> None:
        """One optimiser step of the head, at DeepSpeed's gradient-accumulation boundary."""
        if self.engine is None:
            return
        start = time.perf_counter()
        boundary = self.engine.is_gradient_accumulation_boundary()
        self.engine.step()
        self.steps += int(boundary)
        self._seconds += time.perf_counter() - start

    def drain(self) -> dict[str, float]:
        """Metrics since the last call, over all data-parallel ranks (collective), and start anew."""
        tally, self._tally = self._tally, Tally(self.depths)
        seconds, self._seconds = self._seconds, 0.0
        if dist.is_initialized():
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
        return {"head_steps": self.steps}

    def load_state(self, state: dict[str, int]) -> None:
        """Restore `state()`."""
        self.steps = state["head_steps"]
