"""The pre-RL stage on one data-parallel rank: the trunk frozen, the head trained on the policy's own responses.

One stage before RL is enough (Bebop, arXiv 2606.12370); during RL, the regime decides whether the head
is trained further.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from openrlhf.trainer.ray.launcher import BaseModelActor

from openrlhf_mtp.config.checkpoints import LATEST, cut_off
from openrlhf_mtp.config.run_files import CHECKPOINTS, TRAINED_HEAD
from openrlhf_mtp.config.settings.mtp import MTPSettings
from openrlhf_mtp.config.settings.pretrain import PretrainSettings
from openrlhf_mtp.heads.formats.head_folder import load_head, save_head
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.losses.targets import from_hidden
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.anchor_records import Split, write_records
from openrlhf_mtp.runlog.notices import say
from openrlhf_mtp.runlog.row_writer import RowWriter
from openrlhf_mtp.training.finite import require_finite
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_engine import build_head_engine
from openrlhf_mtp.training.head_metrics import anchor_records
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.held_out import evaluate_head
from openrlhf_mtp.training.observed_policy import ObservedPolicy
from openrlhf_mtp.training.pretrain.batches import collate, step_indices
from openrlhf_mtp.training.pretrain.responses import Response, read_responses, split_by_prompt


class HeadPretrainWorker(BaseModelActor):
    """One rank. Methods are called in order: `setup`, `train`, `evaluate`, `export`."""

    def setup(self, strategy: Any, policy: str, head: str, responses: str, pad_token_id: int) -> int:
        """Load policy, head and responses, resume if there is a checkpoint; returns the steps already done."""
        self._setup_distributed(strategy)
        args = strategy.args
        self.mtp: MTPSettings = args.mtp
        self.settings: PretrainSettings = self.mtp.pretrain
        self.out = Path(args.run.run_folder)
        self.pad_token_id = pad_token_id
        self.actor = ObservedPolicy(
            policy, attn_implementation=args.ds.attn_implementation, param_dtype=args.ds.param_dtype
        )
        self.device = torch.device(torch.cuda.current_device())
        self.actor.requires_grad_(False).to(self.device).eval()
        self.head_trainer = self._build_head_trainer(head)
        everything = list(read_responses(Path(responses)))
        self.train_set, self.held_out = split_by_prompt(everything, self.settings.holdout_fraction)
        return self._resume()

    def _build_head_trainer(self, folder: str) -> HeadTrainer:
        trunk = self.actor.trunk()
        dtype = trunk.output_head.weight.dtype
        head = load_head(folder, trunk.config, dtype=dtype, device=self.device)
        if head.config.wiring.reads_unnormed:
            self.actor.read_unnormed()
        return HeadTrainer(
            engine=build_head_engine(head, self.strategy, self.settings.optim),
            head=head,
            trunk=trunk,
            depths=self.mtp.depths,
            settings=self.settings,
            temperature=self.settings.temperature or self.strategy.args.rollout.temperature,
            seed=self.strategy.args.train.seed,
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
        size = self.settings.micro_batch_size
        micro_batches = [chosen[at : at + size] for at in range(0, len(chosen), size)][rank::ranks]
        # DeepSpeed divides by the number of micro-batches and averages over ranks; undo both
        normalizer = tokens / len(micro_batches) / ranks
        for responses in micro_batches:
            output = self.head_trainer.accumulate(self._head_batch(responses), normalizer)
            self.head_trainer.step()
        return tokens, output

    def _head_batch(self, responses: list[Response]) -> HeadBatch:
        batch = collate(responses, self.pad_token_id)
        sequences = batch.sequences.to(self.device)
        attention_mask = batch.attention_mask.to(self.device)
        with torch.no_grad():
            hidden, normed = self.actor.hidden_states(sequences, attention_mask)
        trunk = self.head_trainer.trunk
        output_weight = trunk.output_head.weight.detach()
        targets = from_hidden(normed, output_weight, self.head_trainer.temperature, trunk.config.vocab_size)
        return HeadBatch(sequences, attention_mask, batch.action_mask.to(self.device), hidden, targets)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Acceptance on the held-out responses, over all ranks; rank 0 also keeps it anchor by anchor."""
        size = self.settings.micro_batch_size
        mine = self.held_out[dist.get_rank() :: dist.get_world_size()]
        batches = (self._head_batch(mine[at : at + size]) for at in range(0, len(mine), size))
        found = evaluate_head(self.head_trainer, self.settings, batches)
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
        """Write the head's folder, ready for `mtp.head`."""
        if dist.get_rank() == 0:
            save_head(os.path.join(self.out, TRAINED_HEAD), self.head_trainer.head)
