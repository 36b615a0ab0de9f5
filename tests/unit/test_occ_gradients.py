"""Study 7: its estimators against exact enumeration, its verdicts, and its rule for a second stage."""

import doctest
import json
import math
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
sys.path.insert(0, str(STUDIES))

from occ_gradients import correlation, estimators, outcome  # noqa: E402
from occ_gradients.checkpoints import CHECKPOINTS, FIRST, LATER, source_of  # noqa: E402
from occ_gradients.contrasts import COEFFICIENTS, GAINS, KINDS, PROXIES, arm  # noqa: E402
from occ_gradients.correlation import Correlation, same_sign, spearman, without_stage  # noqa: E402
from occ_gradients.estimators import (  # noqa: E402
    between_parts,
    gram,
    jackknife,
    of_the_others,
    optimal_coefficient,
    ratio,
    reward_change,
    vertex,
)
from occ_gradients.records import read_record, write_record  # noqa: E402
from occ_rewards.looks import first_look, why_not  # noqa: E402
from replay.recordings import KEEP_EVERY, PATHS, SECOND_OF_A_PAIR  # noqa: E402

VOCABULARY = 3
RESPONSES = list(product(range(VOCABULARY), repeat=2))
"""All responses of two tokens."""
REWARDS = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
SIZE = VOCABULARY + VOCABULARY**2


def log_probs(theta):
    """Of all responses under a tabular softmax policy: a row for the first token, a row after each token [9]."""
    first, second = (
        theta[:VOCABULARY].log_softmax(-1),
        theta[VOCABULARY:].view(VOCABULARY, -1).log_softmax(-1),
    )
    return torch.stack([first[a] + second[a, b] for a, b in RESPONSES])


def head_log_probs(theta):
    """Of a "head" that shares the policy's parameters and reads them wrongly: mixed, and at another temperature [9]."""
    mix = torch.eye(SIZE, dtype=theta.dtype) + 0.4 * torch.roll(torch.eye(SIZE, dtype=theta.dtype), 1, 0)
    return log_probs(0.6 * mix @ theta)


def seeded(seed):
    return torch.randn(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


THETA = seeded(1)
PROBABILITIES = log_probs(THETA).exp()


def per_response(values):
    """Advantage times the gradient of each response's log-prob (or ratio) [9, P]."""
    theta = THETA.clone().requires_grad_()
    rows = [torch.autograd.grad(value, theta, retain_graph=True)[0] for value in values(theta)]
    return (REWARDS - 0.5)[:, None] * torch.stack(rows)


RL = per_response(log_probs)
MTP = per_response(lambda theta: (head_log_probs(theta) - log_probs(theta).detach()).exp())


def expected(value, samples):
    """The exact expectation of a function of so many independent responses' numbers."""
    total = 0.0
    for drawn in product(range(len(RESPONSES)), repeat=samples):
        total += float(PROBABILITIES[list(drawn)].prod()) * value(list(drawn))
    return total


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize(("left", "right"), [(RL, MTP), (MTP, MTP), (RL, RL)], ids=["product", "mtp", "rl"])
def test_inner_products_between_parts_are_those_of_the_exact_gradients(left, right, parts):
    exact = float((PROBABILITIES @ left) @ (PROBABILITIES @ right))
    found = expected(lambda drawn: between_parts(gram(left[drawn], right[drawn])), parts)
    assert found == pytest.approx(exact, rel=1e-12)


def test_a_mean_gradients_own_norm_would_hold_its_noise():
    exact = float((PROBABILITIES @ MTP).square().sum())
    naive = expected(lambda drawn: float(MTP[drawn].mean(0).square().sum()), 2)
    assert naive > 1.2 * exact


def test_the_ratio_of_many_parts_is_that_of_the_exact_gradients():
    drawn = torch.multinomial(
        PROBABILITIES, 4000 * 64, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    rl, mtp = (of[drawn].view(4000, 64, SIZE).mean(1) for of in (RL, MTP))
    g_rl, g_mtp = PROBABILITIES @ RL, PROBABILITIES @ MTP
    exact = float(g_rl @ g_mtp / g_mtp.square().sum())
    tables = [gram(rl[:40], mtp[:40]), gram(mtp[:40], mtp[:40])]
    error = jackknife(lambda kept: ratio(*tables, kept), 40)
    assert ratio(gram(rl, mtp), gram(mtp, mtp), range(4000)) == pytest.approx(exact, abs=5.0 * error / 10.0)
    # blocks of parts have the spread that the jackknife of one of them says
    blocks = [
        ratio(
            gram(rl[at : at + 40], mtp[at : at + 40]), gram(mtp[at : at + 40], mtp[at : at + 40]), range(40)
        )
        for at in range(0, 4000, 40)
    ]
    assert stats.tstd(blocks) == pytest.approx(error, rel=0.5)


def test_a_ratio_over_noise_is_not_a_number():
    below = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert math.isnan(ratio(torch.ones(2, 2), below, [0, 1]))


@pytest.mark.parametrize("each", [2, 3])
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_the_change_of_the_expected_reward_is_exact_for_any_step(each, size):
    step = size * seeded(2)
    log_ratio = log_probs(THETA + step) - log_probs(THETA)
    exact = float((log_probs(THETA + step).exp() - PROBABILITIES) @ REWARDS)
    found = expected(lambda drawn: float(reward_change(log_ratio[drawn], REWARDS[drawn], each)), each)
    assert found == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_the_gradient_with_the_others_as_baseline_is_that_of_the_expected_reward():
    theta = THETA.clone().requires_grad_()
    exact = torch.autograd.grad(log_probs(theta).exp() @ REWARDS, theta)[0]
    score = torch.stack(
        [torch.autograd.grad(value, theta, retain_graph=True)[0] for value in log_probs(theta)]
    )
    direction = seeded(3)

    def along(drawn):
        centered = REWARDS[drawn] - of_the_others(REWARDS[drawn], 3)
        return float(((centered[:, None] * score[drawn]).mean(0)) @ direction)

    assert expected(along, 3) == pytest.approx(float(exact @ direction), rel=1e-10)


def test_the_baseline_takes_variance_away():
    log_ratio = log_probs(THETA + 0.1 * seeded(2)) - log_probs(THETA)

    def square(drawn, baseline):
        centered = REWARDS[drawn] - (of_the_others(REWARDS[drawn], 3) if baseline else 0.0)
        return float((log_ratio[drawn].expm1() * centered).mean()) ** 2

    assert expected(lambda drawn: square(drawn, True), 3) < 0.8 * expected(
        lambda drawn: square(drawn, False), 3
    )


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_the_theorys_coefficient_is_best_for_the_objective_that_it_speaks_of(seed, shrink):
    """J(θ) = ⟨b, θ⟩ - L ‖θ‖² / 2 has equation (1) of docs/occ.md without its "at least"."""
    smoothness, rate = 2.0, shrink / 2.0
    base, theta, g_mtp = seeded(seed), 0.3 * seeded(seed + 1), seeded(seed + 2)

    def objective(at):
        return float(base @ at - smoothness * at.square().sum() / 2.0)

    g_rl = base - smoothness * theta
    best = optimal_coefficient(float(g_rl @ g_mtp), float(g_mtp.square().sum()), smoothness, rate)
    after = {
        c: objective(theta + rate * (g_rl + c * g_mtp))
        for c in (best, best - 0.1, best + 0.1, -1.0, 0.0, 1.0)
    }
    assert after[best] > max(after[best - 0.1], after[best + 0.1])
    assert vertex(after[-1.0], after[0.0], after[1.0]) == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_a_parabola_that_opens_upward_has_no_best_coefficient():
    assert math.isnan(vertex(1.0, 0.0, 1.0))


@pytest.mark.parametrize("module", [estimators, correlation])
def test_the_examples_of_the_docstrings_hold(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=5, max_size=20, unique=True))
def test_the_rank_correlation_is_scipys(pairs):
    left, right = zip(*pairs, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(correlation, "PERMUTATIONS", 50)
        found = spearman(left, right)
    reference = stats.spearmanr(left, right).statistic if len(set(left)) > 1 < len(set(right)) else math.nan
    assert found.value == pytest.approx(reference, abs=1e-9, nan_ok=True)
    if not math.isnan(reference):
        assert found.low <= found.value + 1e-6
        assert found.high >= found.value - 1e-6
        assert spearman(left[:3], right[:3]).points == 3


def test_a_permutation_test_sees_a_correlation_and_leaves_chance_alone():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(20, generator=generator), torch.randn(20, generator=generator)
    assert spearman(x.tolist(), (x + 0.5 * noise).tolist()).p < 0.01
    by_chance = spearman(x.tolist(), noise.tolist())
    reference = stats.spearmanr(x, noise).pvalue
    assert by_chance.p == pytest.approx(reference, abs=0.03)
    missing = [math.nan, *x.tolist()]
    assert spearman(missing, [1.0, *noise.tolist()]) == by_chance


def test_signs_and_trends():
    assert same_sign([1.0, 2.0, math.nan], [3.0, -1.0, 1.0]) == pytest.approx(1 / 3)
    assert without_stage([1.0, 3.0, 10.0, 14.0], [0, 0, 7, 7]) == [-1.0, 1.0, -2.0, 2.0]
    assert math.isnan(without_stage([math.nan, 1.0], [0, 1])[0])


STRONG = Correlation(0.7, 0.35, 0.88, 0.001, 20)


@pytest.mark.parametrize(
    ("whole", "within", "halves", "expected"),
    [
        (STRONG, [0.5, 0.8], 0.6, "one"),
        (STRONG, [0.5, -0.1], 0.6, "undecided"),
        (STRONG, [0.5, 0.8], 0.1, "one"),
        (replace(STRONG, value=0.1, low=-0.3, high=0.49, p=0.6), [0.1, 0.1], 0.6, "none"),
        (replace(STRONG, value=0.1, low=-0.3, high=0.49, p=0.6), [0.1, 0.1], 0.2, "not measurable"),
        (replace(STRONG, value=0.1, low=-0.3, high=0.49, p=0.6), [0.1, 0.1], math.nan, "not measurable"),
        (replace(STRONG, value=0.3, high=0.65, p=0.2), [0.1, 0.1], 0.6, "undecided"),
        (replace(STRONG, value=-0.6, low=-0.8, high=-0.2), [-0.5, -0.5], 0.6, "none"),
        (replace(STRONG, value=math.nan), [], 0.6, "undecided"),
    ],
)
def test_the_verdict_on_the_proxy_is_that_of_the_plan(whole, within, halves, expected):
    assert outcome.verdict(whole, within, halves) == expected


def record(number, gain):
    """A made-up checkpoint whose proxy follows ρ; λ gains `gain` times itself."""
    true = math.sin(number)
    measured = {"product": true, "mtp_norm": 1.0, "rl_norm": 4.0, "ratio": true, "ratio_error": 0.1}
    change = {c: 0.003 + gain * c * (1.0 + 0.1 * math.cos(number)) - 0.001 * c * c for c in COEFFICIENTS}
    by_coefficient = {f"{c:g}": {"change": value, "predicted": value} for c, value in change.items()}
    return {
        "reward": 0.3,
        "alignment": {**measured, "ratio_even": true + 0.01, "ratio_odd": true - 0.01},
        "proxies": dict.fromkeys(PROXIES, true / 100.0),
        "steps": dict.fromkeys(KINDS, by_coefficient),
    }


def records(gain):
    return {checkpoint: record(number, gain) for number, checkpoint in enumerate(CHECKPOINTS)}


def test_the_result_of_made_up_checkpoints_is_what_was_put_in(tmp_path):
    result = outcome.write_result(records(gain=0.02), [], tmp_path)
    assert result["proxies"]["verdict"] == "one"
    assert result["proxies"]["occ"]["value"] == pytest.approx(1.0)
    assert result["proxies"]["occ"]["same_sign"] == pytest.approx(19 / 20), "sin(0) has no sign"
    assert result["theory"]["best_constant"] == pytest.approx(10.0, rel=0.05)
    assert result["theory"]["mtp_over_rl_norm"] == 0.5
    assert result["second_stage"]["due"]
    assert len(result["gains"]) == len(GAINS)
    primary = next(each for each in result["gains"] if each["role"] == "primary")
    assert primary["arm"] == arm("adam", 0.1)
    assert primary["verdict"] == "as expected"
    json.loads((tmp_path / "result.json").read_text())
    page = (tmp_path / "result.md").read_text()
    assert "Is the proxy one: **one**" in page
    assert "| **primary** `occ` | 1.00 (" in page
    assert (tmp_path / "result.png").stat().st_size > 0


def test_pairs_of_the_gains_are_paths():
    means = outcome.by_arm(records(gain=0.02))
    assert {len(values) for values in means.values()} == {len(PATHS)}
    assert set(means) == {arm(kind, c) for kind in KINDS for c in COEFFICIENTS}


@pytest.mark.parametrize(
    ("proxy", "gain", "due"), [("one", 0.0, True), ("none", 0.02, True), ("none", -0.02, False)]
)
def test_the_second_stage_is_due_only_if_something_could_show(proxy, gain, due):
    result = outcome.collect(records(gain), [])
    found, reason = outcome.second_stage(proxy, result["gains"])
    assert found == due
    assert reason


def test_a_checkpoint_without_a_ratio_is_left_out_and_its_record_is_kept(tmp_path):
    made = records(gain=0.0)
    first = next(iter(made))
    made[first]["alignment"] |= {"ratio": math.nan, "mtp_norm": -1.0, "product": 1.0}
    path = tmp_path / "record.json"
    write_record(path, made[first])
    assert json.loads(path.read_text())["alignment"]["ratio"] is None
    made[first] = read_record(path)
    result = outcome.write_result(made, ["one that was not measured"], tmp_path)
    assert result["proxies"]["occ"]["points"] == len(CHECKPOINTS) - 1
    assert "Not measured: one that was not measured." in (tmp_path / "result.md").read_text()


def test_twenty_checkpoints_over_both_base_policies_whose_policies_study_6_keeps():
    assert len(CHECKPOINTS) == len({each.name for each in CHECKPOINTS}) == 20
    assert {each.path for each in CHECKPOINTS} == set(PATHS)
    assert sorted(each.path.policy for each in CHECKPOINTS) == [1] * 10 + [2] * 10
    assert all(updates % KEEP_EVERY == 0 for updates in (FIRST, *LATER))
    assert {each.updates + 1 for each in CHECKPOINTS} == set(SECOND_OF_A_PAIR)
    assert len({each.seed for each in CHECKPOINTS}) == 20


def test_a_checkpoint_that_study_6_has_not_recorded_says_what_to_run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text(json.dumps({"actor": {"model_name_or_path": str(tmp_path)}}))
    with pytest.raises(
        FileNotFoundError, match=r"global_step1_hf is missing: run .*replay/study\.py with --stages"
    ):
        source_of(CHECKPOINTS[0], tmp_path, tmp_path, tmp_path / "heads", 1e-3)


def test_one_primary_gain_with_sign_and_least_effect():
    (primary,) = [each for each in GAINS if each.role == "primary"]
    assert (primary.expected, primary.least) == ("+", 0.0002)
    assert len(GAINS) == len(KINDS) * (len(COEFFICIENTS) - 1)


@pytest.mark.parametrize(
    ("stage", "missing", "expected"),
    [
        ({"due": True, "reason": "gains"}, [], None),
        ({"due": False, "reason": "nothing"}, [], "not due by its plan: nothing"),
        ({"due": True, "reason": "gains"}, ["one"], "1 checkpoints are not measured"),
    ],
)
def test_the_second_stage_begins_only_after_the_first_and_if_due(tmp_path, stage, missing, expected):
    path = tmp_path / "result.json"
    assert "is missing" in str(why_not(path))
    write_record(path, {"missing": missing, "second_stage": stage})
    found = why_not(path)
    assert found is None if expected is None else str(found).startswith(expected)


@pytest.mark.parametrize(
    ("p", "p_equivalent", "missing", "expected"),
    [
        (0.005, 0.5, [], "stop: an effect"),
        (0.02, 0.5, [], "go on"),
        (0.4, 0.03, [], "stop: equivalent"),
        (0.005, 0.5, ["occ"], "incomplete"),
        (None, None, [], "incomplete"),
    ],
)
def test_the_first_look_stops_or_goes_on_by_the_plan(p, p_equivalent, missing, expected):
    primary = {"role": "primary", "p": p, "p_equivalent": p_equivalent}
    assert first_look({"missing": missing, "contrasts": [{"role": "aa"}, primary]}) == expected
