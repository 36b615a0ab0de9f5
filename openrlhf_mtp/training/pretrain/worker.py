"""The pre-RL stage on one data-parallel rank: the trunk frozen, the head trained on the policy's own responses.

One stage before RL is enough (Bebop, arXiv 2606.12370); during RL, the regime decides whether the head
is trained further.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from openrlhf.trainer.ray.launcher import BaseModelActor
from torch import Tensor

from openrlhf_mtp.config.checkpoints import LATEST, cut_off
from openrlhf_mtp.config.run_files import CHECKPOINTS, TRAINED_HEAD
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.settings.pretrain import PretrainSettings
from openrlhf_mtp.heads.formats.head_folder import load_head, save_head
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.losses.targets import from_hidden
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.activity import activity
from openrlhf_mtp.runlog.anchor_records import Split, write_records
from openrlhf_mtp.runlog.count import Count
from openrlhf_mtp.runlog.notices import say
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.runlog.temperature_sweep import TemperaturePoint, write_temperatures
from openrlhf_mtp.training.cut_responses import share_cut
from openrlhf_mtp.training.finite import require_finite
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_engine import build_head_engine
from openrlhf_mtp.training.head_metrics import anchor_records
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.held_out import evaluate_head
from openrlhf_mtp.training.pretrain.batches import Batch, collate, planned_steps, step_indices
from openrlhf_mtp.training.pretrain.frozen_policy import FrozenPolicy
from openrlhf_mtp.training.pretrain.responses import (
    Response,
    policy_fingerprint,
    read_responses,
    responses_fingerprint,
    split_by_prompt,
)
from openrlhf_mtp.training.pretrain.stored_states import StoredStates
from openrlhf_mtp.training.pretrain.temperature_sweep import measure, responses_at


class HeadPretrainWorker(BaseModelActor):
    """One rank. Methods are called in order: `setup`, `train`, `evaluate`, `export`, `sweep_temperatures`."""

    states: StoredStates | None = None

    def setup(self, strategy: Any, policy: str, head: str, responses: str, pad_token_id: int) -> int:
        """Load policy, head and responses, resume if there is a checkpoint; returns the steps already done."""
        self._setup_distributed(strategy)
        args = strategy.args
        self.mtp: MTPSettings = args.mtp
        self.settings: PretrainSettings = self.mtp.pretrain
        self.out = Path(args.run.run_folder)
        self.pad_token_id = pad_token_id
        self.policy = FrozenPolicy(strategy, policy)
        everything = list(read_responses(Path(responses)))
        self.truncated = share_cut([response.cut for response in everything])
        self.train_set, self.held_out = split_by_prompt(everything, self.settings.holdout_fraction)
        self.head_trainer = self._build_head_trainer(head)
        self.states = self._stored_states()
        self._made_with = {
            "policy": policy_fingerprint(policy),
            "responses": responses_fingerprint(everything),
            "unnormed": self.policy.actor.reads_unnormed,
            "attention": args.ds.attn_implementation,
            "batch": self.settings.micro_batch_size,
        }
        return self._resume()

    def _stored_states(self) -> StoredStates:
        return StoredStates(
            self.out,
            self.settings,
            self.train_set,
            self.held_out,
            like=self.head_trainer.trunk.output_head.weight,
            compute=lambda responses: self.policy.states(collate(responses, self.pad_token_id))[0],
            together=self.policy.is_sharded,
        )

    def _build_head_trainer(self, folder: str) -> HeadTrainer:
        trunk = self.policy.trunk
        dtype = trunk.output_head.weight.dtype
        head = load_head(folder, trunk.config, dtype=dtype, device=self.policy.device)
        if head.config.wiring.reads_unnormed:
            self.policy.actor.read_unnormed()
        return HeadTrainer(
            engine=build_head_engine(head, self.strategy, self.settings.optim),
            head=head,
            trunk=trunk,
            depths=self.mtp.depths,
            settings=self.settings.with_warmup(planned_steps(len(self.train_set), self.settings)),
            temperature=self.settings.temperature or self.strategy.args.rollout.temperature,
            seed=self.strategy.args.train.seed,
            verifies_blocks=self.mtp.rollout.verifies_blocks,
        )

    def _resume(self) -> int:
        folder = self.out / CHECKPOINTS
        if not (folder / LATEST).exists():
            return 0
        if (wrong := next(cut_off(folder / (folder / LATEST).read_text().strip()), None)) is not None:
            # this stage keeps one checkpoint; the responses, which took longer, are kept elsewhere
            say(self.out, f"{wrong}; the head is trained from its beginning, on the responses that are there")
            return 0
        _, state = self.strategy.load_ckpt(self.head_trainer.engine, str(folder))
        self.head_trainer.load_state(state)
        return self.head_trainer.steps

    def train(self, last_step: int) -> None:
        """Optimizer steps up to and including number `last_step`, counted from 1."""
        assert self.states is not None, "setup() comes first"
        self.states.fill(self._made_with)
        writer = (
            RowWriter(self.out, after_step=self.head_trainer.steps or None) if dist.get_rank() == 0 else None
        )
        while self.head_trainer.steps < last_step:
            start = time.perf_counter()
            tokens, output = self._optimizer_step(self.head_trainer.steps)
            row = self.head_trainer.drain()
            row[metrics.TIME_STEP_S] = time.perf_counter() - start
            row[metrics.PERF_TRAIN_TOK_S] = tokens / row[metrics.TIME_STEP_S]
            step = self.head_trainer.steps
            require_finite(row, step=step, where="pre-RL stage")
            if step % self.settings.eval_steps == 0 or step == last_step:
                self._keep_records("rollout", anchor_records(output))
                row.update(self.evaluate())
                if self.truncated is not None:
                    row[metrics.POLICY_TRUNCATED_RATE] = self.truncated
            if writer is not None:
                writer.append({metrics.STEP: step, **row})
            if step % self.settings.save_steps == 0 or step == last_step:
                self._save()

    def _optimizer_step(self, step: int) -> tuple[int, MTPLossOutput]:
        """Train on one batch; its response tokens over all ranks, and the loss of this rank's last micro-batch."""
        indices = step_indices(
            step, len(self.train_set), self.settings.batch_size, seed=self.strategy.args.train.seed
        )
        chosen = [self.train_set[index] for index in indices]
        tokens = sum(len(response.response_ids) for response in chosen)
        ranks, rank = dist.get_world_size(), dist.get_rank()
        micro_batches = self._micro_batches(chosen)[rank::ranks]
        # DeepSpeed divides by the number of micro-batches and averages over ranks; undo both
        normalizer = tokens / len(micro_batches) / ranks
        for responses in self._told(micro_batches, "micro-batches"):
            output = self.head_trainer.accumulate(self._head_batch(responses), normalizer)
            self.head_trainer.step()
        return tokens, output

    def _micro_batches(self, responses: list[Response]) -> list[list[Response]]:
        size = self.settings.micro_batch_size
        return [responses[at : at + size] for at in range(0, len(responses), size)]

    def _told(self, micro_batches: list[list[Response]], what: str) -> Iterator[list[Response]]:
        """The micro-batches; rank 0 tells the line of progress which of them it is at."""
        count = Count(len(micro_batches), what)
        with activity(self.out, "head") as now:
            for micro_batch in micro_batches:
                yield micro_batch
                count.advance()
                if dist.get_rank() == 0:
                    now.say(count)

    def _head_batch(self, responses: list[Response], temperature: float | None = None) -> HeadBatch:
        batch, device = collate(responses, self.pad_token_id), self.policy.device
        hidden, normed = self._states(responses, batch)
        trunk = self.head_trainer.trunk
        output_weight = trunk.output_head.weight.detach()
        temperature = temperature or self.head_trainer.temperature
        targets = from_hidden(normed, output_weight, temperature, trunk.config.vocab_size)
        return HeadBatch(
            batch.sequences.to(device),
            batch.attention_mask.to(device),
            batch.action_mask.to(device),
            hidden,
            targets,
        )

    def _states(self, responses: list[Response], batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states as the head reads them, and after the final norm [B, T, H]: stored ones, or those of a forward
        pass (collective when the policy is sharded)."""
        stored = None if self.states is None else self.states.read(responses)
        if self.policy.spares_all(here=stored is not None):
            assert stored is not None
            hidden = stored.to(self.policy.device)
            return hidden, self.policy.normed(hidden)
        return self.policy.states(batch)

    def _in_step(self, batches: Iterable[HeadBatch], missing: int) -> Iterator[HeadBatch]:
        """These batches; and then, where the policy is sharded, as many forward passes more as this rank has batches
        `missing`, because other ranks still need its share of the layers."""
        yield from batches
        if self.policy.is_sharded:
            idle = self.held_out[:1]
            for _ in range(missing):
                self._states(idle, collate(idle, self.pad_token_id))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Acceptance on the held-out responses, over all ranks; rank 0 also keeps it anchor by anchor."""
        ranks, rank = dist.get_world_size(), dist.get_rank()
        most = len(self._micro_batches(self.held_out[::ranks]))
        mine = self._micro_batches(self.held_out[rank::ranks])
        batches = map(self._head_batch, self._told(mine, "batches of the evaluation"))
        found = evaluate_head(self.head_trainer, self.settings, self._in_step(batches, most - len(mine)))
        self._keep_records("heldout", found.records)
        return found.metrics

    def _keep_records(self, split: Split, records: Mapping[str, NDArray[Any]] | None) -> None:
        """Entropy and acceptance of this step's anchors on rank 0, for the report."""
        if records and dist.get_rank() == 0:
            write_records(self.out, self.head_trainer.steps, **records, split=split)

    def _save(self) -> None:
        self.strategy.save_ckpt(
            self.head_trainer.engine,
            str(self.out / CHECKPOINTS),
            tag=f"step{self.head_trainer.steps}",
            max_num=1,
            client_state=self.head_trainer.state(),
        )

    def export(self) -> None:
        """Write the head's folder, ready for `mtp.head`; the stored states have done their work."""
        if dist.get_rank() == 0:
            save_head(os.path.join(self.out, TRAINED_HEAD), self.head_trainer.head)
        if self.states is not None:
            self.states.remove()

    def sweep_temperatures(self) -> None:
        """Measure the trained head at the sweep's temperatures on rank 0, and keep the result in the head's folder. The
        other ranks measure the same where rank 0 needs their share of the policy."""
        own, rank = self.head_trainer.temperature, dist.get_rank()
        temperatures = self.settings.swept_temperatures(own)
        if not temperatures or (rank and not self.policy.is_sharded):
            return
        sampled = {own: self.held_out} | {
            temperature: list(read_responses(responses_at(self.out, temperature)))
            for temperature in temperatures
        }
        points = [self._at_temperature(*each) for each in sampled.items()]
        if rank == 0:
            write_temperatures(self.out / TRAINED_HEAD, [point for point in points if point is not None])

    @torch.no_grad()
    def _at_temperature(self, temperature: float, responses: list[Response]) -> TemperaturePoint | None:
        batches = (self._head_batch(part, temperature) for part in self._micro_batches(responses))
        return measure(self.head_trainer, batches, temperature)
