"""OpenRLHF's trainer process with a head in it: loads, resumes, sends, saves and exports policy and head together.

`PolicyActor` is a plain class, of which `cli.train` makes a Ray actor. The trainer that it constructs is
`policy_trainer.PolicyTrainer`.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import openrlhf.trainer.ray.ppo_actor as upstream
import ray
import torch
import torch.distributed as dist
from openrlhf.models import Actor
from openrlhf.utils.deepspeed.deepspeed_utils import offload_deepspeed_states, reload_deepspeed_states
from openrlhf.utils.distributed_util import torch_dist_barrier_and_cuda_sync

from openrlhf_mtp.config.checkpoints import ACTOR, HEAD, LATEST
from openrlhf_mtp.config.head_contract.folder import HEAD_FOLDER
from openrlhf_mtp.config.machine.precision import dtype_name
from openrlhf_mtp.config.settings.mtp import MTPSettings, SyncSettings
from openrlhf_mtp.heads.formats.head_folder import save_head
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.activity import activity
from openrlhf_mtp.sync.doors import Door
from openrlhf_mtp.sync.opening import open_sync
from openrlhf_mtp.sync.sender import OtherRank, RayEngine, Sender
from openrlhf_mtp.training.observed_policy import ObservedPolicy
from openrlhf_mtp.training.policy_trainer import PolicyTrainer
from openrlhf_mtp.training.reduce import all_gather_objects
from openrlhf_mtp.training.trunk import layer_count, unwrapped
from openrlhf_mtp.training.weight_source import head_source, policy_source
from openrlhf_mtp.upstream.openrlhf.bindings import bind_policy_worker, plain_class


class PolicyActor(plain_class(upstream.PolicyModelActor)):  # type: ignore[misc]
    """OpenRLHF's policy actor with a head, which it loads, sends to the engines, saves, and exports at the end."""

    def init_model_from_pretrained(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Build policy, optimizer, trainer (OpenRLHF) and head; resume all of them; connect to the engines."""
        bind_policy_worker(actor=self.model_class(strategy.args.mtp), trainer=PolicyTrainer)
        super().init_model_from_pretrained(strategy, *args, **kwargs)
        self.trainer.global_step = self.checkpoint_states.get("global_step", 0)
        self._load_head_checkpoint()
        if strategy.args.ds.enable_sleep:  # OpenRLHF has put the policy's away before there was a head
            for engine in self._head_engines():
                offload_deepspeed_states(engine)
        self._sync = self._open_sync()
        self._sync_report: dict[str, float] = {}

    def model_class(self, mtp: MTPSettings | None) -> type[Actor]:
        """The class that wraps the policy; without a head OpenRLHF's own, for all models it knows, vision included."""
        return Actor if mtp is None else ObservedPolicy

    def _open_sync(self) -> Sender | OtherRank | None:
        """The sender of the weights (every rank calls it); None where OpenRLHF sends, or nobody."""
        return self._connect() if self.vllm_engines and self.trainer.own_sync else None

    def _connect(self) -> Sender | OtherRank:
        """Connect to the engines, which must hold the same tensors; the head is left out when they do not draft."""
        mtp, head_trainer = self.strategy.args.mtp, self.trainer.head_trainer
        model = unwrapped(self.actor.model)
        dtype = mtp.rollout.dtype if mtp is not None else dtype_name(next(model.parameters()).dtype)
        head = None
        if head_trainer is not None and mtp.rollout.speculate:
            head = head_source(head_trainer.head, dtype, layer_count(self.actor.trunk()))
        door = Door(torch.device(torch.cuda.current_device()), dist.get_rank())
        return open_sync(
            [RayEngine(engine) for engine in self.vllm_engines],
            mtp.sync if mtp is not None else SyncSettings(),
            policy_source(model, dtype, sharded=self.strategy.args.ds.zero_stage == 3),
            head,
            host=ray.util.get_node_ip_address(),
            door=door,
            cards=all_gather_objects(door.card),
        )

    def broadcast_to_vllm(self) -> None:
        """Policy and head to every engine, verified; see `openrlhf_mtp.sync`. The engines drop their prefix caches.

        A job without a head sends its policy as OpenRLHF does, where that works (`sync.transport.uses_own_sync`).
        """
        if self._sync is None:
            super().broadcast_to_vllm()
            return
        torch.cuda.empty_cache()
        with activity(Path(self.strategy.args.run.run_folder), "sync") as now:
            if dist.get_rank() == 0:
                now.begin("sending weights to the engines")
            report = self._sync.round()
        torch.cuda.empty_cache()  # the round's buffers, before the engines take the memory for their cache
        if report is not None:
            self._sync_report = {
                metrics.SYNC_BYTES: report.bytes,
                metrics.SYNC_BUCKETS: report.buckets,
                metrics.SYNC_RPC_CALLS: report.rpc_calls,
                metrics.SYNC_VERIFY_S: report.verify_s,
            }
        torch_dist_barrier_and_cuda_sync()

    def reload_states(self) -> None:
        """Before training (`ds.enable_sleep`): optimizer and gradients of policy and head back to the GPU."""
        super().reload_states()
        for engine in self._head_engines():
            reload_deepspeed_states(engine)

    def offload_states(self) -> None:
        """After training: optimizer and gradients of policy and head to the host, so that rollouts have the memory."""
        super().offload_states()
        for engine in self._head_engines():
            offload_deepspeed_states(engine)

    def _head_engines(self) -> list[Any]:
        """The head's DeepSpeed engine; none without a head, or where it is frozen."""
        head_trainer = self.trainer.head_trainer
        return [] if head_trainer is None or head_trainer.engine is None else [head_trainer.engine]

    def _load_head_checkpoint(self) -> None:
        """The head of the policy's checkpoint: a run that was cut while saving may have a newer one as well."""
        head_trainer = self.trainer.head_trainer
        if not self.checkpoint_states or head_trainer is None or head_trainer.engine is None:
            return
        ckpt = Path(self.strategy.args.ckpt.path)
        tag = (ckpt / ACTOR / LATEST).read_text().strip()
        if not (ckpt / HEAD / tag).is_dir():
            raise FileNotFoundError(
                f"the policy resumes from {ckpt / ACTOR / tag} but {ckpt / HEAD} holds no head of that "
                'name. A run with mtp.regime "frozen" keeps none: resume it with that regime, or start a new run from '
                "its final/. Otherwise restore the folder"
            )
        _, state = self.strategy.load_ckpt(head_trainer.engine, str(ckpt / HEAD), tag=tag)
        self.trainer.head_steps.load_state(state)

    def save_checkpoint(
        self, tag: str, client_states: Any = None, metric_value: Any = None, metric_key: Any = None
    ) -> None:
        """The head first, then the policy: OpenRLHF resumes from the policy's folder, so a cut leaves both whole."""
        with activity(Path(self.strategy.args.run.run_folder), "checkpoint") as now:
            if dist.get_rank() == 0:
                now.begin(f"saving checkpoint {tag}")
            self._save_checkpoint(tag, client_states, metric_value, metric_key)

    def _save_checkpoint(self, tag: str, client_states: Any, metric_value: Any, metric_key: Any) -> None:
        head_trainer = self.trainer.head_trainer
        ckpt = self.strategy.args.ckpt
        if head_trainer is not None and head_trainer.engine is not None and not self.disable_ds_ckpt:
            self.strategy.save_ckpt(
                head_trainer.engine,
                os.path.join(ckpt.path, HEAD),
                tag,
                ckpt.max_num + 1,  # the one before must outlive a cut between this save and the policy's
                ckpt.max_mem,
                self.trainer.head_steps.state(),
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
        head_trainer = self.trainer.head_trainer
        if head_trainer is None or dist.get_rank() != 0:
            return
        average = self.trainer.head_average
        with nullcontext() if average is None else average.in_place():
            save_head(os.path.join(policy_folder, HEAD_FOLDER), head_trainer.head)

    def measure_held_out(self, experiences: list[Any]) -> dict[str, float]:
        """Acceptance of the head on an evaluation's responses (every rank is called, with the same ones)."""
        found: dict[str, float] = self.trainer.measure_held_out(experiences)
        return found

    def get_sync_report(self) -> dict[str, float]:
        """Metrics of the last weight sync (rank 0's are the ones that count)."""
        return self._sync_report
