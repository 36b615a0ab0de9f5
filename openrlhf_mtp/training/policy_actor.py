"""OpenRLHF's trainer process with a head in it: training step, weight sync, checkpoints.

`PolicyActor` is the Ray actor's plain class and `PolicyTrainer` the trainer it constructs. Both call OpenRLHF's
own methods and add to them; the policy's loss, backward and update are OpenRLHF's, unchanged.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import openrlhf.trainer.ray.ppo_actor as upstream
import torch
import torch.distributed as dist
from openrlhf.utils.distributed_util import torch_dist_barrier_and_cuda_sync
from openrlhf.utils.loss_utils import get_loss_batch_info
from torch import Tensor

from openrlhf_mtp.config.mtp import MTPSettings
from openrlhf_mtp.heads.checkpoint import load_head, save_head
from openrlhf_mtp.losses.alignment import action_positions
from openrlhf_mtp.records import write_records
from openrlhf_mtp.sync.trainer import WeightSync
from openrlhf_mtp.training.actor import MTPActor
from openrlhf_mtp.training.finite import require_finite
from openrlhf_mtp.training.head_engine import build_head_engine
from openrlhf_mtp.training.head_trainer import HeadBatch, HeadTrainer, Schedule
from openrlhf_mtp.training.weight_source import open_weight_sync
from openrlhf_mtp.upstream.bindings import bind_policy_worker, plain_class

HEAD_CHECKPOINT = "_mtp_head"
"""Folder of the head's DeepSpeed checkpoints, beside OpenRLHF's `_actor`."""

HEAD_FOLDER = "mtp"
"""Folder of the exported head inside a policy checkpoint."""

RECORD_EVERY = 10
"""RL steps between two per-anchor records (about 50 kB each)."""


def head_folder(args: Any, mtp: MTPSettings) -> str:
    """Where the job's head lies."""
    return mtp.head or os.path.join(args.actor.model_name_or_path, HEAD_FOLDER)


def build_head_trainer(strategy: Any, actor: MTPActor, mtp: MTPSettings) -> HeadTrainer:
    """Load the head and, unless the regime is "frozen", give it an optimiser."""
    trunk = actor.trunk()
    dtype = next(actor.model.parameters()).dtype
    with torch.random.fork_rng():  # the policy's random numbers must be those of a run without a head
        head = load_head(
            head_folder(strategy.args, mtp), trunk.config, dtype=dtype, device=torch.cuda.current_device()
        )
    return HeadTrainer(
        engine=None if mtp.regime == "frozen" else build_head_engine(head, strategy, mtp.optim),
        head=head,
        trunk=trunk,
        depths=mtp.depths,
        schedule=Schedule(mtp.objective, mtp.kl_warmup_steps),
        temperature=strategy.args.rollout.temperature,
        trunk_sharded=strategy.args.ds.zero_stage == 3,
    )


class PolicyTrainer(upstream.ActorPPOTrainer):
    """OpenRLHF's PPO trainer; trains the head on the same forward passes and sends both models to the engines."""

    def __init__(self, strategy: Any, actor: MTPActor, *args: Any, **kwargs: Any) -> None:
        self.mtp: MTPSettings | None = strategy.args.mtp
        self.head = None if self.mtp is None else build_head_trainer(strategy, actor, self.mtp)
        self.global_step = 0
        self._sync: WeightSync | None = None
        super().__init__(strategy, actor, *args, **kwargs)
        self.sync_report: dict[str, float] = {}

    def _init_vllm_sync_group(self, backend: str) -> None:
        """Open our own weight transfer in place of OpenRLHF's process group (rank 0 only, called by upstream)."""

    def open_sync(self) -> None:
        """Connect to the engines and compare what both sides hold (every rank calls it)."""
        if self.vllm_engines:
            head = None if self.head is None else self.head.head
            self._sync = open_weight_sync(self.strategy, self.actor, head, self.vllm_engines, self.mtp)

    def ppo_train(self, kl_ctl: float) -> dict[str, Any]:
        """OpenRLHF's training on the replay buffer, then the head's metrics of the same updates."""
        status: dict[str, Any] = super().ppo_train(kl_ctl)
        self.global_step += 1
        require_finite(status, step=self.global_step, where="training")
        if self.head is not None:
            status.update(self.head.drain())
            self._keep_records(self.head)
        return status

    def _keep_records(self, head: HeadTrainer) -> None:
        """Every few steps, anchor by anchor: the policy's entropy and the head's overlap."""
        records = head.records()
        if records is not None and dist.get_rank() == 0 and self.global_step % RECORD_EVERY == 1:
            write_records(Path(self.args.run.run_folder), self.global_step, *records)

    def training_step(
        self, experience: Any, kl_ctl: float, step: int, loss_batch_info: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One micro-batch: the policy as OpenRLHF does it, and the head on the hidden states of that forward pass."""
        head = self.head
        if head is None:
            return super().training_step(experience, kl_ctl, step, loss_batch_info)  # type: ignore[no-any-return]
        info = loss_batch_info or get_loss_batch_info(
            self.strategy,
            experience.action_mask,
            replay_buffer=self.replay_buffer,
            step=step,
            dynamic_batch=self.args.train.dynamic_batch_enable,
        )
        actions = action_positions(experience.action_mask)

        def train_head(hidden: Tensor) -> None:
            batch = HeadBatch(experience.sequences, experience.attention_mask, actions, hidden)
            # like OpenRLHF's policy loss: one mean over the tokens of the whole optimiser step, whatever the split
            head.accumulate(batch, info["batch_num_tokens"] / info["dp_size"])

        with self.actor.observed(train_head):
            status: dict[str, Any] = super().training_step(experience, kl_ctl, step, info)
        if not self.args.train.dynamic_batch_enable or self.replay_buffer.dynamic_optimizer_step[step]:
            head.step()
        return status

    def broadcast_to_vllm(self) -> None:
        """Policy and head to every engine, verified; see `openrlhf_mtp.sync`."""
        if self.args.vllm.enable_prefix_caching and dist.get_rank() == 0:
            upstream.ray.get([engine.reset_prefix_cache.remote() for engine in self.vllm_engines])
        torch.cuda.empty_cache()
        assert self._sync is not None, "open_sync() comes before the first broadcast"
        report = self._sync.round()
        if report is not None:
            self.sync_report = {
                "sync/bytes": report.bytes,
                "sync/buckets": report.buckets,
                "sync/rpc_calls": report.rpc_calls,
                "sync/verify_s": report.verify_s,
            }
        torch_dist_barrier_and_cuda_sync()


class PolicyActor(plain_class(upstream.PolicyModelActor)):  # type: ignore[misc]
    """OpenRLHF's policy actor with a head: loads it, saves it with every checkpoint, exports it at the end."""

    def init_model_from_pretrained(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Build policy, optimiser, trainer (OpenRLHF) and head; resume all of them; connect to the engines."""
        bind_policy_worker(actor=MTPActor, trainer=PolicyTrainer)
        super().init_model_from_pretrained(strategy, *args, **kwargs)
        self.trainer.global_step = self.checkpoint_states.get("global_step", 0)
        self._load_head_checkpoint()
        self.trainer.open_sync()

    def _load_head_checkpoint(self) -> None:
        """The head of the policy's checkpoint: a run that was cut while saving may have a newer one as well."""
        head = self.trainer.head
        if not self.checkpoint_states or head is None or head.engine is None:
            return
        ckpt = Path(self.strategy.args.ckpt.path)
        tag = (ckpt / "_actor" / "latest").read_text().strip()
        if not (ckpt / HEAD_CHECKPOINT / tag).is_dir():
            raise FileNotFoundError(
                f"the policy resumes from {ckpt / '_actor' / tag} but {ckpt / HEAD_CHECKPOINT} holds no head of that "
                "name; restore that folder, or start a new run from the exported checkpoint"
            )
        _, state = self.strategy.load_ckpt(head.engine, str(ckpt / HEAD_CHECKPOINT), tag=tag)
        head.load_state(state)

    def save_checkpoint(
        self, tag: str, client_states: Any = None, metric_value: Any = None, metric_key: Any = None
    ) -> None:
        """The head first, then the policy: OpenRLHF resumes from the policy's folder, so a cut leaves both whole."""
        head = self.trainer.head
        ckpt = self.strategy.args.ckpt
        if head is not None and head.engine is not None and not self.disable_ds_ckpt:
            self.strategy.save_ckpt(
                head.engine,
                os.path.join(ckpt.path, HEAD_CHECKPOINT),
                tag,
                ckpt.max_num + 1,  # the one before must outlive a cut between this save and the policy's
                ckpt.max_mem,
                head.state(),
                metric_value=metric_value,
                metric_key=metric_key,
            )
        super().save_checkpoint(tag, client_states, metric_value, metric_key)
        if self.save_hf_ckpt:
            self._export_head(os.path.join(ckpt.path, f"{tag}_hf"))

    def save_model(self) -> None:
        """The policy as a plain Hugging Face folder with the head beside it."""
        super().save_model()
        self._export_head(self.strategy.args.ckpt.output_dir)

    def _export_head(self, policy_folder: str) -> None:
        head = self.trainer.head
        if head is not None and dist.get_rank() == 0:
            save_head(os.path.join(policy_folder, HEAD_FOLDER), head.head)

    def get_sync_report(self) -> dict[str, float]:
        """Metrics of the last weight sync (rank 0's are the ones that count)."""
        return self.trainer.sync_report
