"""The real trainer of `bench step`: one random policy in one process, and the head's part of each form.

OpenRLHF's training step, DeepSpeed, bfloat16; made-up rollouts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from openrlhf_mtp.bench.random_policy import random_policy
from openrlhf_mtp.bench.step_forms import Workload
from openrlhf_mtp.config.run_files import CHECKPOINTS
from openrlhf_mtp.config.settings.mtp import MTPSettings


def write_policy(folder: Path, workload: Workload) -> Path:
    """A random policy with a fresh head; its tokenizer is never asked for anything but two special tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from openrlhf_mtp.config.head_contract.folder import HEAD_FOLDER
    from openrlhf_mtp.heads.formats.equip import init_head
    from openrlhf_mtp.heads.formats.head_folder import save_head
    from openrlhf_mtp.heads.head_config import HeadConfig

    longest = workload.prompt + workload.response
    policy = random_policy(workload.layers, workload.hidden, workload.vocab, longest)
    policy.save_pretrained(folder)
    head = init_head(
        HeadConfig.from_trunk(policy.config, depths=workload.depths),
        policy.model.layers[-1].state_dict(),
        policy.model.norm.weight.detach(),
    )
    save_head(folder / HEAD_FOLDER, head)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(
        folder
    )
    return folder


def build_actor(
    folder: Path, scratch: Path, workload: Workload, more: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """The policy worker of a job with one trainer rank and no engines; `more` are further flags of OpenRLHF."""
    from tqdm import tqdm

    from openrlhf_mtp.training.controller.context import RunContext
    from openrlhf_mtp.upstream.openrlhf.bindings import bind_progress
    from openrlhf_mtp.upstream.openrlhf.flags import parse
    from openrlhf_mtp.upstream.processes import prepare_process

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ.update(WORLD_SIZE="1", RANK="0", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    prepare_process()
    bind_progress(lambda steps, **_: tqdm(steps, disable=True))
    chosen = {**flags(folder, scratch, workload), **more}
    values = ((f"--{name}", () if value is True else (str(value),)) for name, value in chosen.items())
    args: Any = parse([text for name, value in values for text in (name, *value)])
    args.mtp = None
    args.run = RunContext(run_folder=str(scratch), monitor_factory=_no_engines, count_generated=_no_engines)
    from openrlhf.utils import get_strategy

    from openrlhf_mtp.training.observed_policy import ObservedPolicy
    from openrlhf_mtp.training.ray_actor import PolicyActor

    class ActorOfAllForms(PolicyActor):
        """One policy for every form, so that their steps differ in the head alone."""

        def model_class(self, mtp: MTPSettings | None) -> type[ObservedPolicy]:
            return ObservedPolicy

    actor = ActorOfAllForms(1, 0, "127.0.0.1", port)
    actor.init_model_from_pretrained(get_strategy(args), str(folder), max_steps=10_000)
    return actor


def flags(folder: Path, scratch: Path, workload: Workload) -> dict[str, Any]:
    """OpenRLHF's flags for the job of `build_actor`."""
    batch = workload.sequences * workload.micro_batches
    return {
        "actor.model_name_or_path": folder,
        "actor.num_gpus_per_node": 1,
        "algo.advantage.estimator": "reinforce",
        "algo.kl.init_coef": 0,
        "ckpt.path": scratch / CHECKPOINTS,
        "data.prompt_dataset": "none",
        "ds.param_dtype": "bf16",
        "ds.attn_implementation": "sdpa",
        "ds.zero_stage": 2,
        "reward.remote_url": "none",
        "rollout.batch_size": batch,
        "rollout.n_samples_per_prompt": 1,
        "train.batch_size": batch,
        "train.micro_batch_size": workload.sequences,
        "vllm.num_engines": 1,
        "vllm.sync_backend": "gloo",
    }


def _no_engines(engines: list[Any]) -> Any:
    raise AssertionError("this measurement has no engines")


def head_parts(actor: Any, section: dict[str, Any] | None) -> tuple[Any, Any, Any]:
    """The parts of a form that the trainer holds: settings, head trainer, and the head's part of a step."""
    from openrlhf_mtp.training.head_steps import HeadSteps
    from openrlhf_mtp.training.policy_trainer import build_head_trainer

    class LaterSteps(HeadSteps):
        """Steps that are never the first after a rollout, at which OCC's coefficient is 0 and costs nothing."""

        def begin_rollout_batch(self) -> None:
            self._policy_has_moved = True

    if section is None:
        return None, None, None
    mtp, trainer = MTPSettings.model_validate(section), actor.trainer
    head = build_head_trainer(trainer.strategy, trainer.actor, mtp)
    return mtp, head, LaterSteps(mtp, head, trainer.actor, trainer.actor_loss_fn)


def experiences(actor: Any, workload: Workload) -> Iterator[Any]:
    """Made-up rollouts, one sequence each, scored by the policy as it is."""
    import torch
    from openrlhf.trainer.ppo_utils.experience import Experience

    draw = torch.Generator().manual_seed(0)
    length = workload.prompt + workload.response
    for _ in range(workload.sequences * workload.micro_batches):
        tokens = torch.randint(3, workload.vocab, (1, length), generator=draw)
        action_mask = torch.zeros(1, length - 1, dtype=torch.bool)
        action_mask[:, workload.prompt - 1 :] = True
        attention_mask = torch.ones_like(tokens)
        log_probs = actor.forward(tokens, action_mask, attention_mask)
        advantage = torch.randn(1, 1, generator=draw)
        yield Experience(
            sequences=tokens,
            attention_mask=attention_mask,
            action_mask=action_mask,
            action_log_probs=log_probs,
            rollout_log_probs=log_probs.clone(),
            advantages=advantage * action_mask,
            rewards=advantage[0],
            response_length=torch.tensor([float(workload.response)]),
            total_length=torch.tensor([float(length)]),
            truncated=torch.tensor([0.0]),
            info={"reward": advantage[0]},
        )


def observed_batch(actor: Any, experiences: list[Any]) -> Any:
    """The policy's forward pass on a micro-batch, as the head reads it."""
    import torch

    from openrlhf_mtp.training.policy_trainer import joined_rows

    with torch.no_grad():
        return actor.trainer.actor.observe(joined_rows(experiences, 0)).batch
