"""A run that was killed and resumed from a checkpoint ends where the uninterrupted one does: policy, head, optimizers.

The first process trains without interruption and leaves checkpoints on the way; a second one resumes from them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine import trainer_runs as runs
from tests.processes import in_fresh_process

BEFORE, AFTER = (0, 1), (2, 3)
"""Seeds of the rollout batches before and after the checkpoint."""

MTP: dict[str, Any] = {
    "objective": "e2e_tv",
    "kl_warmup_steps": 6,
    "optim": {"lr": 1e-2, "warmup_steps": 3},
    "regime": "joint_policy",
    "coefficient": {"kind": "occ", "scale": 100.0, "smoothing": 0.5},
}
"""Warm-up of learning rate and objective end after the checkpoint, so that a forgotten step number shows; the policy
follows a coefficient that remembers the one before it."""

PRETRAIN = {"batch_size": 8, "micro_batch_size": 4, "epochs": 2, "save_steps": 2, "kl_warmup_steps": 3}
"""Two passes: the resumed stage reads the hidden states that the interrupted one stored."""


@dataclass(frozen=True)
class Folders:
    """Where the two processes read and write."""

    policy: Path
    run: Path
    responses: Path
    straight: Path
    interrupted: Path


def arrays(tensors: dict[str, Any]) -> dict[str, Any]:
    """Tensors as float32 arrays, which cross processes by value."""
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def everything(actor: Any) -> dict[str, Any]:
    """All parameters of policy and head."""
    head = runs.head_masters(actor.trainer.head_trainer)
    return arrays(runs.policy_parameters(actor)) | {f"head {name}": a for name, a in arrays(head).items()}


def without_interruption(folders: Folders) -> dict[str, Any]:
    """What both stages end with; leaves a checkpoint of each in the middle, and the final export."""
    actor = runs.build_actor(runs.arguments(folders.policy, folders.run, MTP))
    runs.train(actor, BEFORE, own_order=True)
    actor.save_checkpoint("global_step2", {"global_step": 2})
    runs.train(actor, AFTER, own_order=True)
    trained = everything(actor)
    actor.save_model()
    # the next checkpoint was cut after the head's part of it
    actor.strategy.save_ckpt(
        actor.trainer.head_trainer.engine,
        str(folders.run / "checkpoints" / "_mtp_head"),
        "global_step4",
        client_state=actor.trainer.head_trainer.state(),
    )
    runs.build_pretrain_worker(folders.policy, folders.interrupted, folders.responses, PRETRAIN).train(2)
    worker = runs.build_pretrain_worker(folders.policy, folders.straight, folders.responses, PRETRAIN)
    worker.train(4)
    return {"RL": trained, "pre-RL": arrays(runs.head_masters(worker.head_trainer))}


def resumed(folders: Folders) -> dict[str, Any]:
    """The same, from the checkpoints."""
    args = runs.arguments(folders.policy, folders.run, MTP, ckpt__load_enable=True)
    actor = runs.build_actor(args)
    assert actor.trainer.global_step == 2
    runs.train(actor, AFTER, own_order=True)
    worker = runs.build_pretrain_worker(folders.policy, folders.interrupted, folders.responses, PRETRAIN)
    assert worker.head_trainer.steps == 2
    stored = (folders.interrupted / "states" / "states.bin").stat().st_mtime_ns
    worker.train(4)
    assert (folders.interrupted / "states" / "states.bin").stat().st_mtime_ns == stored, (
        "nothing is computed again"
    )
    return {"RL": everything(actor), "pre-RL": arrays(runs.head_masters(worker.head_trainer))}


def resume_without_head(folders: Folders) -> str:
    """The message when the head's checkpoint is gone."""
    (folders.run / "checkpoints" / "_mtp_head" / "global_step2").rename(folders.run / "moved")
    with pytest.raises(FileNotFoundError) as refusal:
        runs.build_actor(runs.arguments(folders.policy, folders.run, MTP, ckpt__load_enable=True))
    return str(refusal.value)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    root = tmp_path_factory.mktemp("resume")
    return Folders(
        policy=runs.write_policy(root / "policy"),
        run=root / "run",
        responses=runs.write_responses(root / "responses"),
        straight=root / "straight",
        interrupted=root / "interrupted",
    )


@pytest.fixture(scope="module")
def straight(folders) -> dict[str, Any]:
    return in_fresh_process(without_interruption, folders)


@pytest.fixture(scope="module")
def after_resume(folders, straight) -> dict[str, Any]:
    return in_fresh_process(resumed, folders)


@pytest.mark.parametrize("stage", ["RL", "pre-RL"])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(straight, after_resume, stage):
    expected, found = straight[stage], after_resume[stage]
    assert expected.keys() == found.keys()
    different = {name: abs(found[name] - expected[name]).max() for name in expected}
    assert not {name: size for name, size in different.items() if size > 0}


def test_the_rows_of_a_resumed_stage_are_those_of_the_uninterrupted_one(folders, after_resume):
    def rows(folder: Path) -> list[dict[str, float]]:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        timeless = [
            {
                name: value
                for name, value in json.loads(line).items()
                if not name.startswith(("time/", "perf/"))
            }
            for line in lines
        ]
        # the interrupted run evaluated at its own last step, too
        return [{name: value for name, value in row.items() if "eval/" not in name} for row in timeless]

    assert [row["step"] for row in rows(folders.straight)] == [1, 2, 3, 4]
    assert rows(folders.interrupted) == rows(folders.straight)


def test_the_export_is_the_trained_policy_with_the_trained_head_beside_it(folders, straight):
    import torch
    from transformers import AutoModelForCausalLM

    from openrlhf_mtp.heads.formats.head_folder import load_head

    final = folders.run / "final"
    policy = AutoModelForCausalLM.from_pretrained(final, dtype=torch.bfloat16)
    head = load_head(final / "mtp", policy.config, dtype=torch.bfloat16, device="cpu")
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter.float(), torch.from_numpy(straight["RL"][name])), name
    for name, parameter in head.named_parameters():
        assert torch.equal(parameter, torch.from_numpy(straight["RL"][f"head {name}"]).bfloat16()), name


def test_a_policy_checkpoint_without_its_head_is_refused(folders, after_resume):
    message = in_fresh_process(resume_without_head, folders)
    assert "global_step2" in message
    assert "holds no head" in message
