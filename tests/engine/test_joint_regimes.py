"""The MTP term in the loss that is back-propagated: there, and rightly weighted, whatever else is switched on.

OpenRLHF's own training step runs on made-up rollouts; the backward it asks for is intercepted. What was added to its
loss is compared with the formula, written down here a second time with full logits and loops over samples: its value,
and its gradient at the three places where it enters the policy: hidden states, embedding and output head.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.engine import trainer_runs as runs
from tests.engine.joint_cases import CASES, DEPTHS, JOINT, MOVING, NIGHTLY, OCC
from tests.engine.joint_watch import Outcome, Seen, watched
from tests.processes import on_ranks


def cases(names: Iterable[str]) -> list[Any]:
    """As parameters of a test, marked."""
    return [pytest.param(name, marks=[pytest.mark.nightly] if name in NIGHTLY else []) for name in names]


def run_all(folder: Path, out: Path, names: list[str]) -> dict[str, Outcome]:
    """Every case from the same start, two rollout batches of two optimizer steps each."""
    outcomes = {}
    for name in names:
        mtp, flags = CASES[name]
        args = runs.arguments(folder, out / name.replace(" ", "_"), mtp, **MOVING | flags)
        actor = runs.build_float32_actor(args)
        outcome = Outcome()
        with watched(outcome):
            outcome.status = runs.train(actor, range(2), own_order=True)
        outcomes[name] = outcome
    return outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, pytestconfig) -> dict[str, Outcome]:
    folder = runs.write_policy(tmp_path_factory.mktemp("policy"), tied=True)
    chosen = [name for name in CASES if name not in NIGHTLY or pytestconfig.getoption("--nightly")]
    return on_ranks(1, run_all, folder, tmp_path_factory.mktemp("out"), chosen)[0]


@pytest.mark.parametrize("name", cases(CASES))
def test_the_term_and_its_gradient_are_the_formulas(outcomes, name):
    seen = outcomes[name].seen
    assert len(seen) >= 4
    for each in seen:
        assert each.term == pytest.approx(each.reference, rel=1e-3, abs=1e-6)
        # float32 throughout; the two forms add up logits in another order
        assert each.gradient_gap <= 1e-3 * max(each.gradient_size) + 1e-7
    assert any(min(each.gradient_size) > 1e-6 for each in seen), "a term without a gradient proves nothing"


STEPS_OF_A_BATCH = runs.PROMPTS * runs.SAMPLES_PER_PROMPT // runs.TRAIN_BATCH


def coefficients(outcome: Outcome) -> list[list[float]]:
    """By optimizer step; all micro-batches of a step have the same."""
    steps = 2 * STEPS_OF_A_BATCH
    each = len(outcome.seen) // steps
    by_step = [outcome.seen[n * each : (n + 1) * each] for n in range(steps)]
    assert all(micro.coefficient == step[0].coefficient for step in by_step for micro in step)
    return [step[0].coefficient for step in by_step]


def second_step_of_each_batch(outcome: Outcome) -> Iterator[list[Seen]]:
    """The micro-batches of the updates before which the policy has moved."""
    each = len(outcome.seen) // (2 * STEPS_OF_A_BATCH)
    for step in (1, 3):
        yield outcome.seen[step * each : (step + 1) * each]


@pytest.mark.parametrize("name", cases(name for name in CASES if name.startswith("occ")))
def test_the_coefficient_is_its_definition_over_the_optimizer_steps_tokens(outcomes, name):
    import numpy as np

    for number, step in enumerate(second_step_of_each_batch(outcomes[name])):
        got, status = step[0].coefficient, outcomes[name].status[number]
        if name == "occ, released code":
            total, positions = np.sum([micro.released for micro in step], axis=0)
            assert got == pytest.approx([total / positions, 0.0, 0.0], rel=1e-3)
            continue
        top, bottom, count = np.sum([micro.occ for micro in step], axis=0)
        np.testing.assert_allclose(got, top / (bottom + 1e-8), rtol=1e-3, atol=1e-7)
        for j in range(DEPTHS):
            assert status[f"occ/alignment/depth_{j + 1}"] == pytest.approx(top[j] / count[j], rel=1e-3)
            assert status[f"occ/magnitude/depth_{j + 1}"] == pytest.approx(bottom[j] / count[j], rel=1e-3)


def test_occ_is_zero_on_the_first_update_after_a_rollout_and_follows_the_policy_afterwards(outcomes):
    first, second, third, fourth = coefficients(outcomes["occ"])
    assert first == third == [0.0] * DEPTHS
    assert all(value != 0.0 for value in second + fourth)


def test_occ_does_not_depend_on_the_split_into_micro_batches(outcomes):
    whole, split = (coefficients(outcomes[name]) for name in ("occ, one micro-batch a step", "occ"))
    assert whole[1] == pytest.approx(split[1], rel=1e-3)
    losses = [outcomes[name].status[0]["mtp/joint_loss"] for name in ("occ, one micro-batch a step", "occ")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_terms_of_occ_are_metrics(outcomes):
    for row in outcomes["occ"].status:
        for j in range(1, DEPTHS + 1):
            ratio = row[f"occ/alignment/depth_{j}"] / row[f"occ/magnitude/depth_{j}"]
            # one of the two updates has a coefficient, the other is 0
            assert row[f"mtp/coefficient/depth_{j}"] == pytest.approx(ratio / STEPS_OF_A_BATCH, rel=1e-6)
            assert row[f"occ/sign/depth_{j}"] == (1.0 if ratio > 0 else -1.0)
        assert row["mtp/joint_loss"] != 0.0


def test_a_fixed_coefficient_is_logged_with_the_two_terms_it_ignores(outcomes):
    for row in outcomes["policy loss"].status:
        assert row["mtp/coefficient"] == pytest.approx(JOINT["coefficient"]["value"])
        assert row["occ/magnitude/depth_1"] > 0.0
        assert "occ/alignment/depth_3" in row


def test_importance_sampling_keeps_some_tokens_of_the_term_and_drops_others(outcomes):
    kept, dropped = outcomes["occ, importance sampling"].corrected
    assert min(kept, dropped) > 20


ON_RANKS = ("occ, dynamic batches", "cross-entropy, dynamic batches")
"""Dynamic batches keep the order, so that one rank's optimizer step holds the samples of both ranks'."""


TwoRanks = list[tuple[dict[str, Outcome], list[dict[str, float]]]]


def run_two_ranks(folder: Path, out: Path) -> tuple[dict[str, Outcome], list[dict[str, float]]]:
    """This rank's outcomes, and its status with ranks that differ."""
    return run_all(folder, out, list(ON_RANKS)), run_with_unlike_ranks(folder, out / "unlike")


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory) -> TwoRanks:
    folder, out = (tmp_path_factory.mktemp(part) for part in ("policy", "out"))
    return on_ranks(2, run_two_ranks, runs.write_policy(folder, tied=True), out)


@pytest.mark.parametrize("name", ON_RANKS)
def test_the_term_does_not_depend_on_the_number_of_ranks(outcomes, on_two_ranks, name):
    alone, *each_rank = (
        outcome[name].status[0]["mtp/joint_loss"] for outcome in (outcomes, *(of for of, _ in on_two_ranks))
    )
    assert alone != 0.0
    assert each_rank == pytest.approx([alone, alone], rel=1e-3)


def test_occ_does_not_depend_on_the_number_of_ranks(outcomes, on_two_ranks):
    name = "occ, dynamic batches"
    alone, first, second = (
        outcome[name].status[0] for outcome in (outcomes, *(of for of, _ in on_two_ranks))
    )
    for j in range(1, DEPTHS + 1):
        metric = f"mtp/coefficient/depth_{j}"
        assert first[metric] == second[metric] != 0.0
        assert first[metric] == pytest.approx(alone[metric], rel=1e-3)


def run_with_unlike_ranks(folder: Path, out: Path) -> list[dict[str, float]]:
    """The released code's coefficient is each rank's own: here one rank's is 0, as with bounds or short responses."""
    import torch

    from openrlhf_mtp.training.joint.occ_released import ReleasedOCC

    coefficient = {"kind": "occ", "occ_variant": "released_code", "bounds": [0.0, 1.0]}
    actor = runs.build_float32_actor(
        runs.arguments(folder, out, {**OCC, "coefficient": coefficient}, **MOVING)
    )
    own = torch.full((DEPTHS,), float(os.environ["RANK"]), dtype=torch.float64)
    with mock.patch.object(ReleasedOCC, "from_sums", return_value=own):
        return runs.train(actor, range(2))


def test_ranks_whose_coefficients_differ_do_not_wait_for_each_other(on_two_ranks):
    first, second = (unlike for _, unlike in on_two_ranks)
    for one, other in zip(first, second, strict=True):
        assert one["occ/magnitude/depth_1"] == other["occ/magnitude/depth_1"] > 0.0
