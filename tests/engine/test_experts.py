"""A policy with experts under DeepSpeed: the router's auxiliary loss, and updates on any ranks and in any ZeRO stage.

OpenRLHF makes a block of experts a leaf of ZeRO-3 (`set_z3_leaf_modules`): all experts of a layer are gathered at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.engine import trainer_runs as runs
from tests.engine.test_two_ranks import BATCH, OPTIM, compare, rl_update
from tests.engine.tiny import WITH_EXPERTS
from tests.processes import on_ranks

COEFFICIENT = 0.5
MTP = {"objective": "kl", "optim": OPTIM}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.write_policy(tmp_path_factory.mktemp("policy"), changes=WITH_EXPERTS)


def auxiliary_loss(model: Any, experience: Any) -> float:
    """E sum_e f_e P_e over all layers and all tokens that are no padding (Switch Transformers, equations 4 to 6, with k
    choices a token): f_e counts the choices of expert e by token, and P_e is its mean probability."""
    import torch

    mask = experience.attention_mask
    positions = (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 1)
    with torch.no_grad():
        output = model(
            experience.sequences, attention_mask=mask, position_ids=positions, output_router_logits=True
        )
    real = mask.flatten().bool()
    probabilities = torch.cat([layer[real].double().softmax(-1) for layer in output.router_logits])
    chosen = probabilities.topk(model.config.num_experts_per_tok).indices
    counts = torch.nn.functional.one_hot(chosen, model.config.num_experts).double().sum(1).mean(0)
    return float(model.config.num_experts * (counts * probabilities.mean(0)).sum())


def losses_with_and_without(folder: Path, out: Path) -> list[tuple[float, float, float]]:
    """By micro-batch: the back-propagated loss with the auxiliary loss, the one without, and the auxiliary loss."""
    from transformers import AutoModelForCausalLM

    args = runs.arguments(folder, out, MTP, actor__adam__lr=0, actor__aux_loss_coef=COEFFICIENT)
    actor = runs.build_float32_actor(args)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    trainer, strategy = actor.trainer, actor.strategy
    step, backward = trainer.training_step, strategy.backward
    losses: dict[bool, list[float]] = {True: [], False: []}
    auxiliary = []

    def keep_loss(loss: Any, *rest: Any, **more: Any) -> None:
        losses[trainer.aux_loss].append(loss.item())
        backward(loss, *rest, **more)

    def keep_experience(experience: Any, *rest: Any, **more: Any) -> Any:
        if trainer.aux_loss:
            auxiliary.append(auxiliary_loss(model, experience))
        return step(experience, *rest, **more)

    with (
        mock.patch.object(strategy, "backward", keep_loss),
        mock.patch.object(trainer, "training_step", keep_experience),
    ):
        for trainer.aux_loss in losses:
            runs.train(actor, [0], own_order=True)
    return list(zip(losses[True], losses[False], auxiliary, strict=True))


def test_the_routers_auxiliary_loss_reaches_the_policys_loss(policy: Path, tmp_path: Path) -> None:
    (found,) = on_ranks(1, losses_with_and_without, policy, tmp_path)
    assert len(found) == runs.PROMPTS * runs.SAMPLES_PER_PROMPT // 2, "micro-batches of two"
    for with_it, without, auxiliary in found:
        assert with_it - without == pytest.approx(COEFFICIENT * auxiliary, rel=1e-4)
        assert auxiliary > 1, "an even spread gives k = 2 at least, and nothing less than 1"


def update(folder: Path, out: Path, zero_stage: int) -> dict[str, Any]:
    """What one rollout moves the head by, and the norm of the policy's gradient."""
    import numpy as np

    norms = []

    def look(actor: Any) -> None:
        (status,) = runs.train(actor, [0])
        norms.append(status["actor_grad_norm"])

    micro_batch = BATCH // int(os.environ["WORLD_SIZE"]) // 3
    moved = rl_update(folder, out, micro_batch, MTP, train_with=look, ds__zero_stage=zero_stage)
    return moved | {"policy's gradient": np.array(norms)}


@pytest.fixture(scope="module")
def one_rank(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (found,) = on_ranks(1, update, policy, tmp_path_factory.mktemp("one"), 2)
    return found  # type: ignore[no-any-return]


@pytest.mark.nightly
@pytest.mark.parametrize(("ranks", "zero_stage"), [(2, 2), (1, 3), (2, 3)])
def test_the_update_does_not_depend_on_ranks_or_the_zero_stage(
    ranks: int, zero_stage: int, policy: Path, one_rank: dict[str, Any], tmp_path: Path
) -> None:
    found = on_ranks(ranks, update, policy, tmp_path, zero_stage)[0]
    assert found["policy's gradient"] == pytest.approx(one_rank["policy's gradient"], rel=1e-4)
    scatter, scale = compare(one_rank, found)
    assert scatter <= 1e-4
    assert scale <= 1e-5
