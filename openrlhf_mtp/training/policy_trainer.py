"""OpenRLHF's PPO trainer with a head in it: the story of a training step, and the head's metrics.

`PolicyTrainer`'s methods call OpenRLHF's own and add to them. The policy's loss, backward and update are OpenRLHF's; in
the joint regimes one term is added to the loss at the point where it is back-propagated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openrlhf.trainer.ray.ppo_actor as upstream
import torch
import torch.distributed as dist
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.utils.loss_utils import get_loss_batch_info
from torch import Tensor

from openrlhf_mtp.config.head_contract import head_folder
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.heads.formats.head_folder import load_head
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.activity import Activity, activity
from openrlhf_mtp.runlog.anchor_records import write_records
from openrlhf_mtp.runlog.count import Count
from openrlhf_mtp.sync.transport import uses_own_sync
from openrlhf_mtp.training.finite import require_finite
from openrlhf_mtp.training.head_average import HeadAverage
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_engine import build_head_engine
from openrlhf_mtp.training.head_metrics import anchor_records
from openrlhf_mtp.training.head_steps import HeadSteps
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.held_out import evaluate_head
from openrlhf_mtp.training.observed_policy import Observation, ObservedPolicy
from openrlhf_mtp.training.step_inputs import StepInputs
from openrlhf_mtp.upstream.openrlhf.extra_loss import added_to_backward
from openrlhf_mtp.upstream.openrlhf.optimizer_step import StepInfo, dynamic_window

RECORD_EVERY = 10
"""RL steps between two per-anchor records (about 150 kB each)."""


def joined_rows(experiences: list[Any], pad_token_id: int) -> Experience:
    """Samples of an evaluation as one micro-batch."""
    rows = [
        Experience(sequences=one.sequences, attention_mask=one.attention_mask, action_mask=one.action_mask)
        for one in experiences
    ]
    return Experience.concat_experiences(rows, pad_token_id)


def build_head_trainer(strategy: Any, actor: ObservedPolicy, mtp: MTPSettings) -> HeadTrainer:
    """Load the head and, unless the regime is "frozen", give it an optimizer."""
    trunk = actor.trunk()
    dtype = next(actor.model.parameters()).dtype
    with torch.random.fork_rng():  # the policy's random numbers must be those of a run without a head
        folder = head_folder(mtp.head, strategy.args.actor.model_name_or_path)
        head = load_head(folder, trunk.config, dtype=dtype, device=torch.cuda.current_device())
    if head.config.wiring.reads_unnormed:
        actor.read_unnormed()
    return HeadTrainer(
        engine=None if mtp.regime == "frozen" else build_head_engine(head, strategy, mtp.optim),
        head=head,
        trunk=trunk,
        depths=mtp.depths,
        settings=mtp,
        temperature=strategy.args.rollout.temperature,
        trunk_sharded=strategy.args.ds.zero_stage == 3,
        seed=strategy.args.train.seed,
        verifies_blocks=mtp.rollout.verifies_blocks,
    )


class PolicyTrainer(upstream.ActorPPOTrainer):
    """OpenRLHF's PPO trainer; trains the head on the same forward passes."""

    def __init__(self, strategy: Any, actor: ObservedPolicy, *args: Any, **kwargs: Any) -> None:
        self.mtp: MTPSettings | None = strategy.args.mtp
        self.head_trainer = None if self.mtp is None else build_head_trainer(strategy, actor, self.mtp)
        self.global_step = 0
        self.own_sync = uses_own_sync(strategy.args.run.own_sync)
        self._dynamic_step: StepInfo | None = None
        self._inputs: StepInputs | None = None  # of the optimizer step that OpenRLHF's loop is in
        self._now: Activity | None = None
        self._count: Count | None = None  # micro-batches of this rollout, over all passes
        self._output: MTPLossOutput | None = None  # of the micro-batch it is at, for the records
        super().__init__(strategy, actor, *args, **kwargs)
        self.head_steps = (
            None
            if self.mtp is None or self.head_trainer is None
            else HeadSteps(self.mtp, self.head_trainer, actor, self.actor_loss_fn)
        )
        self.head_average = self._head_average()

    def _head_average(self) -> HeadAverage | None:
        """The head's average where OpenRLHF keeps one of the policy; rank 0 exports both."""
        trainer = self.head_trainer
        if trainer is None or trainer.engine is None or self.ema_model is None or dist.get_rank() != 0:
            return None
        return HeadAverage(trainer.head, self.ema_beta)

    def _init_vllm_sync_group(self, backend: str) -> None:
        """OpenRLHF's process group, unless our own weight transfer replaces it (rank 0 only, called by upstream)."""
        if not self.own_sync:
            super()._init_vllm_sync_group(backend)

    def ppo_train(self, kl_ctl: float) -> dict[str, Any]:
        """OpenRLHF's training on the replay buffer, then the head's metrics of the same updates."""
        if self.head_steps is not None:
            self.head_steps.begin_rollout_batch()
            self._dynamic_step = None
        with activity(Path(self.args.run.run_folder), "training") as self._now:
            self._count = None
            status: dict[str, Any] = super().ppo_train(kl_ctl)
        self.global_step += 1
        require_finite(status, step=self.global_step, where="training")
        if self.head_steps is not None:
            row = self.head_steps.drain()
            metrics.validate(row)
            status.update(row)
            self._keep_records()
        return status

    def _tell(self) -> None:
        """Rank 0, at the beginning of a micro-batch: show in the line of progress how many are done."""
        if dist.get_rank() != 0 or self._now is None:
            return
        if self._count is None:
            batches = len(self.replay_buffer) // self.replay_buffer.sample_batch_size
            self._count = Count(batches * self.max_epochs, "micro-batches")
            self._now.begin(f"training {self._count}")  # one micro-batch of a real model can take a while
            return
        self._count.advance()
        self._now.say(f"training {self._count}")

    def _keep_records(self) -> None:
        """Every few steps, anchor by anchor: the policy's entropy and the head's acceptance."""
        if self._output is None or dist.get_rank() != 0 or self.global_step % RECORD_EVERY != 1:
            return
        records = anchor_records(self._output)
        write_records(Path(self.args.run.run_folder), self.global_step, **records)  # type: ignore[arg-type]

    @torch.no_grad()
    def measure_held_out(self, experiences: list[Any]) -> dict[str, float]:
        """The head's acceptance on responses of an evaluation, the same on every rank (collective); rank 0 also keeps
        it anchor by anchor."""
        assert self.head_trainer is not None, "the controller asks for it where the job has a head"
        self.actor.eval()
        try:
            found = evaluate_head(self.head_trainer, self.mtp, self._batches(experiences))  # type: ignore[arg-type]
        finally:
            self.actor.train()
        if found.records and dist.get_rank() == 0:
            out = Path(self.args.run.run_folder)
            write_records(out, self.global_step, **found.records, split="heldout")
        return found.metrics

    def _batches(self, experiences: list[Any]) -> Iterator[HeadBatch]:
        """The policy's forward passes on the samples of an evaluation, a micro-batch at a time."""
        size = self.args.train.micro_batch_size
        for at in range(0, len(experiences), size):
            rows = joined_rows(experiences[at : at + size], self.tokenizer.pad_token_id)
            rows.to_device(torch.cuda.current_device())
            yield self.actor.observe(rows).batch

    def training_step(
        self,
        experience: Any,
        kl_ctl: float,
        micro_batch_number: int,
        loss_batch_info: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Train policy and head on one micro-batch: OpenRLHF's training step, with the head's part in its middle.

        1. Before an optimizer step's first micro-batch, fix what all of them share: `HeadSteps.begin`.
        2. OpenRLHF's forward pass; what the head reads of it is detached, once: `ObservedPolicy.forward`.
        3. The head's loss on it and the head's backward: `HeadTrainer.accumulate`.
        4. In the joint regimes, the term that is to reach the policy: `JointTerm.term`.
        5. OpenRLHF's loss, plus that term, its backward and its update.
        6. After an optimizer step's last micro-batch, the head's own update: `HeadSteps.end`.
        """
        self._tell()
        head_steps = self.head_steps
        if head_steps is None:
            return super().training_step(experience, kl_ctl, micro_batch_number, loss_batch_info)
        info = self._step_info(experience, micro_batch_number, loss_batch_info)
        if self._inputs is None or info.micro_batch_index == 0:
            self._inputs = head_steps.begin(info)
        inputs, head_trainer, joint = self._inputs, head_steps.head_trainer, head_steps.joint
        terms: list[Tensor | None] = []  # the forward pass's, until its backward takes it

        def on_forward(seen: Observation) -> None:
            output = head_trainer.accumulate(
                seen.batch,
                inputs.normalizer,
                anchor_seed=inputs.anchor_seed,
                row_weight=inputs.row_weight(experience),
                completes_step=info.completes_step,
            )
            self._output = output
            terms.append(None if joint is None else joint.term(experience, seen, output, inputs))

        with self.actor.observed(on_forward), added_to_backward(self.strategy, terms.pop):
            status: dict[str, Any] = super().training_step(experience, kl_ctl, micro_batch_number, info)
        head_steps.end(
            is_optimizer_step=info.completes_step,
            has_dynamic_batches=self.args.train.dynamic_batch_enable,
        )
        if info.completes_step and self.head_average is not None:
            self.head_average.update()
        return status

    def _step_info(
        self, experience: Any, micro_batch_number: int, loss_batch_info: dict[str, Any] | None
    ) -> StepInfo:
        """The optimizer step that a micro-batch belongs to, with OpenRLHF's normalizers."""
        if not self.args.train.dynamic_batch_enable:
            assert isinstance(loss_batch_info, StepInfo), "upstream.last_step has OpenRLHF's loop pass it"
            return loss_batch_info
        normalizers = get_loss_batch_info(
            self.strategy,
            experience.action_mask,
            replay_buffer=self.replay_buffer,
            step=micro_batch_number,
            dynamic_batch=True,
        )
        self._dynamic_step = dynamic_window(
            self.replay_buffer, micro_batch_number, normalizers, self._dynamic_step
        )
        return self._dynamic_step
