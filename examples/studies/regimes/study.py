"""Study 4: regimes of joint training, and what they do to the reward.

    python examples/studies/regimes/study.py            two CPU cores; 90 minutes after study 1, with --parallel 2
    python examples/studies/regimes/study.py --smoke    two minutes: two arms, one seed, two steps

From the same policy and the same head, 150 steps of GRPO with four updates a rollout: the head trained without touching
the policy (detach), its cross-entropy or its policy-gradient loss also reaching the policy with a fixed coefficient,
and with OCC's tracked one. Besides the reward: the two terms whose ratio is OCC's coefficient (of the joint arms), the
alignment of head and policy updates and the magnitude of the head's. After an interrupt it continues where it stopped.
Result: README.md beside this file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import rl
from harness.main import main
from harness.study import Arm, Contrast, Study
from objectives.study import STUDY as OBJECTIVES

STEPS = 150
MATTERS = 0.02
"""Reward: a smaller difference would not decide which regime to use."""


def arm(name: str, **mtp: object) -> Arm:
    """An arm of RL with these settings of the head."""
    # the committed result is of runs before this clip, which bounds the ratio of a bad token that the head expects
    clip = {"actor": {"dual_clip": 3.0}} if mtp["regime"] == "joint_policy" else {}
    return Arm(name, {**clip, "data": {"max_samples": STEPS * rl.PROMPTS_A_STEP}, "mtp": mtp})


def fixed(value: float) -> dict[str, object]:
    """A coefficient that stays as it is."""
    return {"kind": "fixed", "value": value}


STUDY = Study(
    name="regimes",
    question="Does a multi-token loss that reaches the policy help or hurt the reward?",
    command="train",
    arms=[
        arm("detach", regime="detach"),
        arm("joint_ce", regime="joint_ce", coefficient=fixed(0.1)),
        arm("joint_policy_0.1", regime="joint_policy", coefficient=fixed(0.1)),
        arm("joint_policy_1.0", regime="joint_policy", coefficient=fixed(1.0)),
        arm("occ", regime="joint_policy", coefficient={"kind": "occ"}),
    ],
    measure=rl.measure,
    figure=rl.regimes_figure,
    columns=rl.columns(
        "reward/first",
        "reward/last",
        "reward/mean",
        "eval/last",
        "length/last",
        *rl.ACCEPTANCE,
        "coefficient/mean",
        "alignment/mean",
        "magnitude/mean",
    ),
    contrasts=[
        Contrast("joint_policy_1.0", "detach", "reward/last", role="primary", expected="-", least=MATTERS),
        *(
            Contrast(arm, "detach", "reward/last", expected="-", least=MATTERS)
            for arm in ("joint_ce", "joint_policy_0.1")
        ),
        *(
            Contrast(arm, "detach", name, expected="-", least=MATTERS)
            for name in ("reward/mean", "eval/last")
            for arm in ("joint_ce", "joint_policy_0.1", "joint_policy_1.0")
        ),
        # with a coefficient near 0.002, OCC's arm is detach's: these show how large chance is
        *(
            Contrast("occ", "detach", name, role="aa", least=MATTERS)
            for name in ("reward/last", "reward/mean", "eval/last")
        ),
        Contrast("occ", "detach", "length/mean", role="aa"),
        Contrast("occ", "joint_policy_1.0", "reward/last"),
    ],
    head_of=(OBJECTIVES, "e2e_tv"),
    smoke_arms=("joint_ce", "occ"),
    smoke_settings=rl.SMOKE_SETTINGS,
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
