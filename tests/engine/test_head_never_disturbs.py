"""Training a detached head changes nothing for the policy: the same parameters, bit for bit, as without a head.

Ten optimizer steps, two for each rollout batch, in bfloat16 with OpenRLHF's deterministic settings and its gradient
clipping active in every step. One process trains all runs, so that machine and libraries are the same.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.engine import trainer_runs as runs
from tests.processes import on_ranks

ROLLOUTS = 5
STEPS = ROLLOUTS * runs.PROMPTS * runs.SAMPLES_PER_PROMPT // runs.TRAIN_BATCH
TOLERANCE = 1e-6
"""The project's promise; what is measured is 0."""

HEAD_LEARNING_RATE = 1e-2
HEAD_MAX_NORM = 1e-3
# With eps = 1 AdamW's step is no longer than lr times the gradient's norm, so that clipping shows in the parameters.
BOUNDED_STEPS = {"lr": HEAD_LEARNING_RATE, "eps": 1.0}

REGIMES: dict[str, dict[str, Any] | None] = {
    "no head": None,
    "frozen": {"regime": "frozen"},
    "detach": {"regime": "detach", "objective": "e2e_tv", "optim": {"lr": HEAD_LEARNING_RATE}},
    "detach, clipped": {"optim": BOUNDED_STEPS | {"max_norm": HEAD_MAX_NORM}},
    "detach, not clipped": {"optim": BOUNDED_STEPS | {"max_norm": 1e3}},
    "disturbing": {"optim": {"lr": HEAD_LEARNING_RATE}},
}
HEADS = [name for name, mtp in REGIMES.items() if mtp is not None and name != "disturbing"]


@dataclass(frozen=True)
class Outcome:
    """What one run did.

    Attributes:
        from_plain: largest difference of any policy parameter to the run without a head.
        policy_moved: largest change of a policy parameter.
        head_moved: largest change of a head parameter, and the L2 norm of the change of all.
        status: OpenRLHF's status with the head's metrics, one a rollout batch.
    """

    from_plain: float
    policy_moved: float
    head_moved: tuple[float, float]
    status: list[dict[str, float]]


def disturbance() -> Any:
    """A mistake to catch: the head draws from the random state that also shuffles the policy's batches.

    (Another one, a head that reads the policy's embedding without detaching it, DeepSpeed catches by itself.)
    """
    import torch

    from openrlhf_mtp.training.head_trainer import HeadTrainer

    step = HeadTrainer.step

    def drawing_step(trainer: Any) -> None:
        torch.rand(())
        step(trainer)

    return mock.patch.object(HeadTrainer, "step", drawing_step)


def train_all(folder: Path, out: Path) -> dict[str, Outcome]:
    """Every regime from the same start; the run without a head is the first."""
    outcomes: dict[str, Outcome] = {}
    plain: dict[str, Any] = {}
    for name, mtp in REGIMES.items():
        actor = runs.build_actor(runs.arguments(folder, out, mtp))
        policy = runs.policy_parameters(actor)
        head = {} if mtp is None else runs.head_masters(actor.trainer.head_trainer)
        with disturbance() if name == "disturbing" else nullcontext():
            status = runs.train(actor, range(ROLLOUTS))
        trained = runs.policy_parameters(actor)
        plain = plain or trained
        moved = (0.0, 0.0)
        if mtp is not None:
            now = runs.head_masters(actor.trainer.head_trainer)
            moved = runs.largest_difference(head, now), runs.distance(head, now)
        outcomes[name] = Outcome(
            from_plain=runs.largest_difference(plain, trained),
            policy_moved=runs.largest_difference(policy, trained),
            head_moved=moved,
            status=status,
        )
    return outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, Outcome]:
    # tied embeddings are the harder case: what the head reads twice is one tensor of the policy
    folder = runs.write_policy(tmp_path_factory.mktemp("policy"), tied=True)
    return on_ranks(1, train_all, folder, tmp_path_factory.mktemp("out"))[0]


@pytest.mark.parametrize("regime", HEADS)
def test_the_policy_is_the_one_of_a_run_without_a_head(outcomes, regime):
    assert outcomes[regime].from_plain <= TOLERANCE
    assert outcomes[regime].policy_moved > 1e-3, "a policy that did not train proves nothing"


def test_the_comparison_would_notice_a_head_that_disturbs(outcomes):
    assert outcomes["disturbing"].from_plain > 100 * TOLERANCE


def test_clipping_was_active_for_the_policy_in_every_run(outcomes):
    for outcome in outcomes.values():
        assert all(row["actor_grad_norm"] > 2 * runs.POLICY_MAX_NORM for row in outcome.status)


@pytest.mark.parametrize("regime", HEADS)
def test_the_policys_gradient_norm_does_not_contain_the_heads(outcomes, regime):
    plain, with_head = outcomes["no head"].status, outcomes[regime].status
    assert [row["actor_grad_norm"] for row in with_head] == [row["actor_grad_norm"] for row in plain]
    assert [row["policy_loss"] for row in with_head] == [row["policy_loss"] for row in plain]


def test_a_frozen_head_is_measured_and_does_not_change(outcomes):
    frozen = outcomes["frozen"]
    assert frozen.head_moved == (0.0, 0.0)
    assert all(row["mtp/anchors"] > 0 and row["mtp/alpha/depth_3"] > 0 for row in frozen.status)
    assert all("mtp/grad_norm" not in row for row in frozen.status)


def test_a_detached_head_learns_at_its_own_learning_rate(outcomes):
    detached = outcomes["detach"]
    assert detached.head_moved[0] > HEAD_LEARNING_RATE, "ten AdamW steps move further than one"
    assert {row["mtp/lr"] for row in detached.status} == {HEAD_LEARNING_RATE}
    assert {row["actor_lr"] for row in detached.status} == {runs.LEARNING_RATE}
    # the rollouts are random, so there is little to learn, but the frozen head measures the same anchors
    frozen, last = outcomes["frozen"].status[-1], detached.status[-1]
    assert last["mtp/anchors"] == frozen["mtp/anchors"]
    assert last["mtp/expected_length"] > frozen["mtp/expected_length"]


def test_the_heads_gradient_is_clipped_to_its_own_norm(outcomes):
    clipped, free = outcomes["detach, clipped"], outcomes["detach, not clipped"]
    longest = STEPS * HEAD_LEARNING_RATE * HEAD_MAX_NORM
    assert all(row["mtp/grad_norm"] > 10 * HEAD_MAX_NORM for row in clipped.status + free.status)
    assert 0 < clipped.head_moved[1] <= longest * 1.01
    assert free.head_moved[1] > 10 * longest
