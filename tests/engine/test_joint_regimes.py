"""The MTP term in the loss that is back-propagated: there, and rightly weighted, whatever else is switched on.

OpenRLHF's own training step runs on made-up rollouts; the backward it asks for is intercepted. What was added to its
loss is compared with the formula, written down here a second time with full logits and loops over samples: its value,
and its gradient at the three places where it enters the policy: hidden states, embedding and output head.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.engine import trainer_runs as runs
from tests.processes import on_ranks

DEPTHS = 3
JOINT = {"regime": "joint_policy", "depths": DEPTHS, "coefficient": {"value": 0.7}}
OCC = {"regime": "joint_policy", "depths": DEPTHS, "coefficient": {"kind": "occ"}}
MOVING = {"actor__max_norm": 1.0, "actor__adam__lr": 3e-3}
"""Large steps, so that log-probs have moved by the second update."""

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "policy loss": (JOINT, {}),
    "policy loss, temperature": (JOINT, {"rollout__temperature": 0.7}),
    "cross-entropy": (JOINT | {"regime": "joint_ce"}, {}),
    "cross-entropy, half of the anchors": (JOINT | {"regime": "joint_ce", "anchor_fraction": 0.5}, {}),
    "cross-entropy, dynamic batches": (
        JOINT | {"regime": "joint_ce"},
        {"train__dynamic_batch_enable": True, "train__max_tokens_per_gpu": 96},
    ),
    "cross-entropy, advantages": (
        JOINT | {"regime": "joint_ce", "objective": "e2e_tv", "advantage": {"weighting": "sigmoid"}},
        {},
    ),
    "occ": (OCC, {}),
    "occ, entropy bonus": (OCC, {"actor__entropy_coef": 0.01}),
    "occ, KL loss": (OCC, {"algo__kl__use_loss": True, "algo__kl__init_coef": 0.1}),
    "occ, dual clip": (OCC, {"actor__dual_clip": 3.0}),
    "occ, importance sampling": (
        OCC,
        {
            "algo__advantage__is_correction_level": "token",
            "algo__advantage__is_correction_threshold": [0.7, 1.4],
        },
    ),
    "occ, GSPO": (OCC, {"actor__policy_loss_type": "gspo"}),
    "occ, dynamic batches": (OCC, {"train__dynamic_batch_enable": True, "train__max_tokens_per_gpu": 96}),
    "occ, one micro-batch a step": (OCC, {"train__micro_batch_size": 8}),
    "occ, adapters": (OCC, {"ds__lora__rank": 4, "ds__lora__alpha": 64}),
    "occ, half of the anchors": (OCC | {"anchor_fraction": 0.5}, {}),
    "occ, released code": (
        {**OCC, "coefficient": {"kind": "occ", "occ_variant": "released_code"}},
        {"train__micro_batch_size": 8},
    ),
}

NIGHTLY = {
    "occ, entropy bonus",
    "occ, KL loss",
    "occ, dual clip",
    "occ, GSPO",
    "occ, adapters",
    "occ, half of the anchors",
}
"""Losses of OpenRLHF's that go through the same lines as the others; each of these combinations costs 3 s."""


def cases(names: Iterable[str]) -> list[Any]:
    """As parameters of a test, marked."""
    return [pytest.param(name, marks=[pytest.mark.nightly] if name in NIGHTLY else []) for name in names]


@dataclass
class Seen:
    """One micro-batch's term, as it was back-propagated and as the formula has it.

    Attributes:
        term, reference: values.
        gradient_gap: largest difference of the gradients for hidden states, embedding and output head.
        gradient_size: largest entry of each of the reference's.
        coefficient: by depth.
        occ: what this micro-batch adds to sum(delta_RL delta_MTP), sum(delta_MTP^2) and to the tokens, each by depth.
        released: what it adds to the public code's sum of ratios and to its positions.
    """

    term: float
    reference: float
    gradient_gap: float
    gradient_size: list[float]
    coefficient: list[float]
    occ: list[list[float]]
    released: list[float]


@dataclass
class Outcome:
    """What a case did: micro-batch by micro-batch, tokens kept and dropped by importance sampling, metrics."""

    seen: list[Seen] = field(default_factory=list)
    corrected: tuple[int, int] = (0, 0)
    status: list[dict[str, float]] = field(default_factory=list)


def reference_log_probs(
    head: Any,
    experience: Any,
    entries: tuple[Any, Any, Any],
    temperature: float,
    share: set[tuple[int, int]] | None,
) -> tuple[Any, Any]:
    """log q^j(x_t) in column t - 1 and where it exists, [k, B, T - 1] each, by the definition of the masks."""
    import torch

    hidden, table, weight = entries
    tokens, attention = experience.sequences, experience.attention_mask.long()
    batch, length = tokens.shape
    positions = (attention.cumsum(-1) - 1).clamp(min=0)
    ahead = [torch.nn.functional.embedding(tokens.roll(-j, 1), table) for j in range(1, DEPTHS + 1)]
    fixed = {name: p.detach() for name, p in head.named_parameters()}
    states = torch.func.functional_call(head, fixed, (hidden, ahead, positions, attention, DEPTHS))
    action = torch.nn.functional.pad(experience.action_mask.bool(), (1, 0))
    values = hidden.new_zeros(DEPTHS, batch, length - 1)
    mask = torch.zeros(DEPTHS, batch, length - 1, dtype=torch.bool)
    for j in range(1, DEPTHS + 1):
        log_q = (states[j - 1] @ weight.T / temperature).log_softmax(-1)
        for b in range(batch):
            for i in range(length - j - 1):
                if action[b, i + 1 : i + j + 2].all() and (share is None or (b, i) in share):
                    mask[j - 1, b, i + j] = True
                    values[j - 1, b, i + j] = log_q[b, i, tokens[b, i + j + 1]]
    return values, mask


def occ_terms(log_probs: Any, old: Any, values: Any, mask: Any, action: Any) -> tuple[Any, Any]:
    """What a micro-batch adds to OCC's sums and to the public code's, token by token from their definitions."""
    paper = [[0.0] * DEPTHS for _ in range(3)]
    for j, b, t in mask.nonzero().tolist():
        rl, mtp = (float(new[b, t]) - float(old[b, t]) for new in (log_probs, values[j]))
        for row, add in zip(paper, (rl * mtp, mtp * mtp, 1.0), strict=True):
            row[j] += add
    ratio = 0.0
    for b, t in (mask[0] & action.bool()).nonzero().tolist():
        rl, mtp = (float(new[b, t]) - float(old[b, t]) for new in (log_probs, values[0]))
        ratio += rl * mtp / (mtp * mtp + 1e-8)
    return paper, [ratio, float(len(action) * action.sum(1).max())]


def advantage_weights(experience: Any, micro_batches: list[Any]) -> Any:
    """sigmoid(a) [B], over its mean over all tokens that the depths predict in the optimizer step."""
    import torch

    def weight(one: Any) -> Any:
        mask = one.action_mask
        return torch.sigmoid((one.advantages * mask).sum(1) / mask.sum(1))

    def predicted(one: Any) -> Any:
        return sum((one.action_mask.sum(1) - depth).clamp(min=0) for depth in range(1, DEPTHS + 1))

    total = sum((weight(one) * predicted(one)).sum() for one in micro_batches)
    return weight(experience) * sum(predicted(one).sum() for one in micro_batches) / total


def is_inside(args: Any, old: Any, engine: Any) -> Any:
    """Tokens whose importance weight is within the band."""
    low, high = args.algo.advantage.is_correction_threshold
    return ((old - engine).exp() >= low) & ((old - engine).exp() <= high)


def policy_loss(args: Any, values: Any, mask: Any, rollout: Any, info: dict[str, Any]) -> Any:
    """OpenRLHF's documented policy losses, from their papers' formulas."""
    import torch

    old, advantages, engine = rollout
    ratio = (values - old).clamp(-20, 20).exp()
    if args.actor.policy_loss_type == "gspo":
        mean = ((values - old) * mask).sum(-1) / mask.sum(-1).clamp(min=1)
        ratio = mean.exp()[:, None] * mask
    low, high = args.actor.eps_clip_low_high
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    if args.actor.dual_clip is not None:
        floored = torch.maximum(surrogate, args.actor.dual_clip * advantages)
        surrogate = torch.where(advantages < 0, floored, surrogate)
    loss = -surrogate
    if args.algo.advantage.is_correction_level == "token":
        loss = loss * torch.where(is_inside(args, old, engine), (old - engine).exp(), 0.0)
    if args.actor.policy_loss_type == "gspo":
        each = (loss * mask).sum(-1) / mask.sum(-1).clamp(min=1)
        return each.sum() / info["global_batch_size"]
    return (loss * mask).sum() / info["batch_num_tokens"]


@contextmanager
def intercepted(actor: Any, outcome: Outcome) -> Iterator[None]:
    """Compare every micro-batch's term with the formula, just before its backward."""
    import torch
    from openrlhf.utils.deepspeed import DeepspeedStrategy

    from openrlhf_mtp.training.head_step import HeadStep, rollout_of
    from openrlhf_mtp.training.trunk import Trunk
    from openrlhf_mtp.upstream.openrlhf.extra_loss import added_to_backward

    backward, observe, weights = DeepspeedStrategy.backward, HeadStep.observe, Trunk.weights
    latest: dict[str, Any] = {}

    @contextmanager
    def aliased(trunk: Trunk, *, sharded: bool) -> Iterator[Any]:
        """Views of the two matrices: a gradient asked for at a view stops there, before DeepSpeed's hooks."""
        with weights(trunk, sharded=sharded) as matrices:
            latest["matrices"] = tuple(matrix.view_as(matrix) for matrix in matrices)
            yield latest["matrices"]

    def observing(own: HeadStep, experience: Any, info: Any, seen: Any) -> None:
        observe(own, experience, info, seen)
        latest.update(own=own, experience=experience, info=info, seen=seen)

    def comparing(strategy: Any, loss: Any, *args: Any, **kwargs: Any) -> None:
        own, experience, info = latest["own"], latest["experience"], latest["info"]
        mtp, joint = own.joint.mtp, own.joint
        anchors = own.trainer._last.anchors
        share = None
        if mtp.anchor_fraction < 1.0:
            flat, length = anchors.index.tolist(), experience.sequences.shape[1]
            share = {divmod(n, length) for n in flat}
        entries = (latest["seen"].hidden, *latest["matrices"])
        temperature = strategy.args.rollout.temperature
        values, mask = reference_log_probs(own.trainer.head, experience, entries, temperature, share)
        coefficient = (joint.coefficient if joint.is_tracked else joint.tracker.fixed()).tolist()
        rollout = rollout_of(experience)
        inside = is_inside(strategy.args, rollout.old_log_probs, rollout.rollout_log_probs)
        kept, dropped = outcome.corrected
        outcome.corrected = (kept + int((mask[0] & inside).sum()), dropped + int((mask[0] & ~inside).sum()))
        reference = values.new_zeros(())
        for j, factor in enumerate(coefficient):
            if mtp.regime == "joint_ce":
                by_sample = -(values[j] * mask[j]).sum(-1)
                if mtp.advantage.weighting != "none":
                    by_sample = by_sample * advantage_weights(experience, info.micro_batches)
                each = by_sample.sum() / info["batch_num_tokens"]
            elif joint.is_released_code:
                scaled = rollout._replace(advantages=rollout.advantages * factor)
                each, factor = (
                    policy_loss(strategy.args, values[j], mask[j], scaled, info),
                    DEPTHS * (factor != 0),
                )
            else:
                each = policy_loss(strategy.args, values[j], mask[j], rollout, info)
            inside_mean = strategy.args.actor.policy_loss_type != "gspo"
            reference = reference + factor / DEPTHS * each / (mtp.anchor_fraction if inside_mean else 1.0)
        term = latest["term"] if latest["term"] is not None else reference * 0.0
        added = float((loss - latest["plain"]).detach())
        # adapters leave embedding and output head as they are: the hidden states alone lead to them
        trained = [entry for entry in entries if entry.requires_grad]
        assert len(trained) == (1 if strategy.args.ds.lora.rank else 3)
        got = torch.autograd.grad(term, trained, retain_graph=True)
        wanted = torch.autograd.grad(reference, trained, retain_graph=True)
        gap = max(float((g - w).abs().max()) for g, w in zip(got, wanted, strict=True))
        size = [float(w.abs().max()) for w in wanted]
        scored = latest["seen"].log_probs.detach(), rollout.old_log_probs, values.detach(), mask
        terms = occ_terms(*scored, experience.action_mask)
        outcome.seen.append(Seen(added, float(reference), gap, size, coefficient, *terms))
        backward(strategy, loss, *args, **kwargs)

    @contextmanager
    def remembering(strategy: Any, term: Any) -> Iterator[None]:
        def kept() -> Any:
            latest["term"] = term()
            return latest["term"]

        with added_to_backward(strategy, kept):
            inner = strategy.backward

            def outer(loss: Any, *args: Any, **kwargs: Any) -> None:
                latest["plain"] = loss
                inner(loss, *args, **kwargs)

            strategy.backward = outer
            yield

    with (
        mock.patch.object(DeepspeedStrategy, "backward", comparing),
        mock.patch.object(HeadStep, "observe", observing),
        mock.patch.object(Trunk, "weights", aliased),
        mock.patch("openrlhf_mtp.training.policy_trainer.added_to_backward", remembering),
    ):
        yield


def run_all(folder: Path, out: Path, names: list[str]) -> dict[str, Outcome]:
    """Every case from the same start, two rollout batches of two optimizer steps each."""
    outcomes = {}
    for name in names:
        mtp, flags = CASES[name]
        args = runs.arguments(folder, out / name.replace(" ", "_"), mtp, **MOVING | flags)
        actor = runs.build_float32_actor(args)
        outcome = Outcome()
        with intercepted(actor, outcome):
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

    from openrlhf_mtp.training.joint.coefficient import CoefficientTracker

    coefficient = {"kind": "occ", "occ_variant": "released_code", "bounds": [0.0, 1.0]}
    actor = runs.build_float32_actor(
        runs.arguments(folder, out, {**OCC, "coefficient": coefficient}, **MOVING)
    )
    own = torch.full((DEPTHS,), float(os.environ["RANK"]), dtype=torch.float64)
    with mock.patch.object(CoefficientTracker, "released_code", return_value=own):
        return runs.train(actor, range(2))


def test_ranks_whose_coefficients_differ_do_not_wait_for_each_other(on_two_ranks):
    first, second = (unlike for _, unlike in on_two_ranks)
    for one, other in zip(first, second, strict=True):
        assert one["occ/magnitude/depth_1"] == other["occ/magnitude/depth_1"] > 0.0
