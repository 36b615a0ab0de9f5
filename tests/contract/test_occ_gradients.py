"""Study 7's gradients and steps on tiny policies: they are the derivatives of what training adds up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes import in_fresh_process

EXAMPLES = Path(__file__).parents[2] / "examples"
STEP, TARGET = 1e-3, 3e-4


def measured(folder: Path) -> dict[str, Any]:
    """On the smoke form's paths, whose policies and heads are random."""
    sys.path[:0] = [str(EXAMPLES / "studies"), str(EXAMPLES / "arithmetic")]
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    import torch
    from occ_gradients import smoke
    from occ_gradients.checkpoints import source_of
    from occ_gradients.estimators import reward_change
    from occ_gradients.gradients import Differentiated, score
    from occ_gradients.proxies import proxies
    from occ_gradients.stepping import HeldOut, direction, size_for
    from occ_gradients.text import experience, group_norm, sample_groups, split
    from replay.states import load_policy
    from replay.study import Folders

    at, checkpoint = Folders(folder / "paths"), smoke.CHECKPOINTS[1]
    smoke.make_paths(at)
    start = at.heads(checkpoint.path.policy) / "e2e_tv" / "head"
    source = source_of(checkpoint, at.path(checkpoint.path), start, folder / "heads", rate=1e-3)
    common = {"tokens": smoke.TOKENS, "reward": smoke.even_length}
    training = sample_groups(source.before, count=8, each=4, held_out=False, seed=5, **common)
    pieces = [experience(part) for part in split(training, 8)]
    score(source.before, pieces)
    here = Differentiated(source.after, source.head)
    parts, whole = here.parts(pieces), here.parts([together(pieces)])
    held = sample_groups(source.after, count=8, each=4, held_out=True, seed=6, **common)
    held_out = HeldOut(held, 4, here, load_policy(source.after))
    found: dict[str, Any] = {
        "rewards": sorted(set(held_out.rewards.tolist())),
        "split": [
            float((one.mean(0) - other.mean(0)).norm() / other.mean(0).norm())
            for one, other in ((parts.rl, whole.rl), (parts.mtp, whole.mtp))
        ],
        "advantages": [
            float(group_norm(torch.tensor([0.0, 1.0, 1.0, 0.0]), 4).std()),
            sum(each.advantage for each in training),
        ],
    }
    found["derivatives"] = derivatives(here, together(pieces), whole)
    gradient = held_out.gradient()
    step = STEP * gradient / gradient.norm()
    log_ratio, _ = held_out.after(step)
    found["reward"] = [float(reward_change(log_ratio, held_out.rewards, 4).mean()), float(gradient @ step)]
    found["back"] = float(held_out.after(torch.zeros_like(step))[0].abs().max())
    along = direction("gradient", parts, 0.5)
    first = float(1e-3 * held_out.origin.norm() / along.norm())
    size = size_for(lambda size: held_out.after(size * along)[1], TARGET, first)
    found["size"] = held_out.after(size * along)[1] / TARGET
    mixed = parts.rl.mean(0) + 0.5 * parts.mtp.mean(0)
    found["direction"] = float((along - mixed).abs().max())
    adam = direction("adam", parts, 0.5)
    found["adam"] = [float(adam.abs().max()), float((adam.sign() * mixed.sign()).min())]
    still = Differentiated(source.before, source.head).parts(pieces)
    found["still"] = proxies(still.scored)
    found["moved"] = proxies(parts.scored)
    tokens = parts.scored[0].tokens
    found["old"] = float((tokens.old_log_probs - pieces[0].action_log_probs).abs().max())
    found["depths"] = list(parts.scored[0].head_log_probs.mask.shape)
    return found


def together(pieces: list[Any]) -> Any:
    """All of a text as one micro-batch."""
    from openrlhf.trainer.ppo_utils.experience import Experience

    return Experience.concat_experiences(pieces, 0)


def derivatives(here: Any, experience: Any, whole: Any) -> dict[str, list[float]]:
    """By loss: the slope along a random direction by differences, and by the gradient."""
    import torch
    from torch import nn

    parameters = here.parameters
    origin = nn.utils.parameters_to_vector(parameters).detach().clone()
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(len(origin), generator=generator)
    direction = direction / direction.norm()

    def losses(at: float) -> list[float]:
        with torch.no_grad():
            nn.utils.vector_to_parameters(origin + at * direction, parameters)
        return [float(value) for value in here.losses(experience)]

    ahead, behind = losses(0.02), losses(-0.02)
    losses(0.0)
    return {
        name: [(up - down) / 0.04, -float(gradient[0] @ direction)]
        for name, up, down, gradient in zip(("rl", "mtp"), ahead, behind, (whole.rl, whole.mtp), strict=True)
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result: dict[str, Any] = in_fresh_process(measured, tmp_path_factory.mktemp("occ"))
    assert result["rewards"] == [0.0, 1.0], "without both rewards nothing is measured"
    return result


def test_the_gradients_are_those_of_trainings_losses_over_all_parameters(found):
    for slope, by_gradient in found["derivatives"].values():
        assert abs(by_gradient) > 1e-5
        assert by_gradient == pytest.approx(slope, rel=0.03)


def test_the_mean_over_parts_is_the_gradient_of_the_whole_text(found):
    assert found["split"] == pytest.approx([0.0, 0.0], abs=1e-4)


def test_the_prediction_of_a_small_step_is_its_change_of_the_expected_reward(found):
    change, predicted = found["reward"]
    assert predicted > 0.0
    assert change == pytest.approx(predicted, rel=0.02)
    assert found["back"] == pytest.approx(0.0, abs=1e-5)


def test_a_step_has_the_divergence_that_was_asked_for(found):
    assert found["size"] == pytest.approx(1.0, abs=0.05)


def test_both_kinds_of_step_go_where_they_should(found):
    assert found["direction"] == pytest.approx(0.0, abs=1e-7)
    largest, agreement = found["adam"]
    assert largest <= 1.0 + 1e-6, "a mean over its root mean square"
    assert agreement >= 0.0


def test_the_proxies_are_0_where_the_policy_has_not_moved(found):
    for name, value in found["still"].items():
        assert value == pytest.approx(0.0, abs=1e-4), name
    assert abs(found["moved"]["occ"]) > 1e-6
    assert found["moved"]["occ_bounded"] == min(1.0, max(0.0, found["moved"]["occ"]))


def test_the_scored_tokens_are_depth_1s_with_the_samplers_log_probs(found):
    assert found["old"] == 0.0
    assert found["depths"][0] == 1


def test_advantages_are_normalized_within_a_group(found):
    spread, total = found["advantages"]
    assert spread == pytest.approx(1.0, rel=1e-6)
    assert total == pytest.approx(0.0, abs=1e-4)
