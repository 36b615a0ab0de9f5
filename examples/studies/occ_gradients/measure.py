"""One checkpoint, from its policies and head to a record of numbers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from replay.pool import Grade
from replay.states import load_policy
from torch import Tensor
from worked.reward import grade

from occ_gradients.checkpoints import Source
from occ_gradients.contrasts import COEFFICIENTS, KINDS, Kind
from occ_gradients.estimators import between_parts, gram, jackknife, ratio, reward_change, standard_error
from occ_gradients.gradients import Differentiated, Parts, score
from occ_gradients.proxies import proxies
from occ_gradients.stepping import HeldOut, direction, size_for
from occ_gradients.text import experience, sample_groups, split

FOR_SIZE = 64
"""Held-out responses that the size of a step is found on."""


@dataclass(frozen=True)
class Scale:
    """How much text a checkpoint takes.

    Attributes:
        problems, each: training problems, and responses to each of them.
        parts: into which that text is divided; problems divide by it.
        held_out, held_out_each: the same of the held-out text.
        tokens: most tokens of a response.
        reward: of a response.
    """

    problems: int
    each: int
    parts: int
    held_out: int
    held_out_each: int
    tokens: int
    reward: Grade = grade


FULL = Scale(problems=128, each=8, parts=8, held_out=64, held_out_each=4, tokens=112)


def measure(source: Source, scale: Scale, seed: int) -> dict[str, Any]:
    """Everything that the result needs of a checkpoint; README.md says what each number is."""
    started = time.process_time()
    common = {"tokens": scale.tokens, "reward": scale.reward}
    training = sample_groups(
        source.before, count=scale.problems, each=scale.each, held_out=False, seed=seed, **common
    )
    experiences = [experience(part) for part in split(training, len(training) // scale.parts)]
    score(source.before, experiences)
    here = Differentiated(source.after, source.head)
    parts = here.parts(experiences)
    responses = sample_groups(
        source.after, count=scale.held_out, each=scale.held_out_each, held_out=True, seed=seed, **common
    )
    held_out = HeldOut(responses, scale.held_out_each, here, load_policy(source.after))
    gradient = held_out.gradient()
    _, moved_by = held_out.sample(FOR_SIZE).against(load_policy(source.before))
    return {
        "reward": float(held_out.rewards.mean()),
        "training_reward": sum(one.reward for one in training) / len(training),
        "alignment": alignment(parts, gradient),
        "proxies": proxies(parts.scored),
        "recorded_kl": moved_by,
        "steps": {kind: steps(kind, parts, held_out, gradient, moved_by) for kind in KINDS},
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def alignment(parts: Parts, gradient: Tensor) -> dict[str, float]:
    """Inner products, squared norms and their ratio ρ, without noise's share.

    `held_out_product` and `held_out_rl` are inner products of the held-out gradient of the expected reward with g_MTP
    and g_RL. `ratio_even` and `ratio_odd` are ρ from every second part, to see how well it is measured.
    """
    count = len(parts.rl)
    product, norm, rl = gram(parts.rl, parts.mtp), gram(parts.mtp, parts.mtp), gram(parts.rl, parts.rl)

    def rho(kept: Sequence[int]) -> float:
        return ratio(product, norm, kept)

    return {
        "product": between_parts(product),
        "mtp_norm": between_parts(norm),
        "rl_norm": between_parts(rl),
        "ratio": rho(range(count)),
        "ratio_error": jackknife(rho, count),
        "ratio_even": rho(range(0, count, 2)),
        "ratio_odd": rho(range(1, count, 2)),
        "held_out_product": float(gradient.double() @ parts.mtp.mean(0).double()),
        "held_out_rl": float(gradient.double() @ parts.rl.mean(0).double()),
    }


def steps(
    kind: Kind, parts: Parts, held_out: HeldOut, gradient: Tensor, moved_by: float
) -> dict[str, dict[str, float]]:
    """By coefficient: the change of the expected reward, and its gain over a coefficient of 0.

    Args:
        kind: of step.
        parts: gradients of the training text.
        held_out: the text that the change is measured on.
        gradient: of the expected reward on it [P].
        moved_by: KL a token that the step has at a coefficient of 0.
    """
    plain, few = direction(kind, parts, 0.0), held_out.sample(FOR_SIZE)
    first = 1e-3 * float(held_out.origin.norm() / plain.norm())
    size = size_for(lambda size: few.after(size * plain)[1], moved_by, first)
    found: dict[str, dict[str, float]] = {}
    changes: dict[float, Tensor] = {}
    for coefficient in COEFFICIENTS:
        step = size * direction(kind, parts, coefficient)
        log_ratio, kl = held_out.after(step)
        changes[coefficient] = change = reward_change(log_ratio, held_out.rewards, held_out.each)
        found[f"{coefficient:g}"] = {
            "change": float(change.mean()),
            "error": standard_error(change),
            "predicted": float(gradient.double() @ step.double()),
            "kl": kl,
            "size": size,
        }
    for coefficient, change in changes.items():
        gain = change - changes[0.0]
        found[f"{coefficient:g}"] |= {"gain": float(gain.mean()), "gain_error": standard_error(gain)}
    return found
