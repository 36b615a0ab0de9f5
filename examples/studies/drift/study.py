"""Study 3: what keeps a head aligned while RL moves the policy.

    python examples/studies/drift/study.py            two CPU cores, no GPU; 45 minutes after study 1, with --parallel 2
    python examples/studies/drift/study.py --smoke    two minutes: two arms, one seed, two steps

From the same policy and the same head (study 1's e2e TV head of that seed), 100 steps of GRPO: the head left as it was
before RL, trained on with CE, with e2e TV, and with e2e TV weighted by the advantage (`mtp.advantage`, our design).
Acceptance is what the engines counted. After an interrupt it continues where it stopped.
Result: README.md beside this file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import rl
from harness.main import main
from harness.study import Arm, Contrast, Study
from objectives.study import STUDY as OBJECTIVES

STEPS = 100


def arm(name: str, **mtp: object) -> Arm:
    """An arm of RL with these settings of the head."""
    return Arm(name, {"data": {"max_samples": STEPS * rl.PROMPTS_A_STEP}, "mtp": mtp})


STUDY = Study(
    name="drift",
    question="Does a head have to be trained during RL, and with which objective?",
    command="train",
    arms=[
        arm("pre_rl_only", regime="frozen"),
        arm("online_ce", regime="detach", objective="ce"),
        arm("online_e2e_tv", regime="detach", objective="e2e_tv"),
        arm(
            "advantage_aware",
            regime="detach",
            objective="e2e_tv",
            advantage={"weighting": "exponential", "temperature": 1.0},
        ),
    ],
    measure=rl.measure,
    figure=rl.drift_figure,
    columns=rl.columns(
        "length/first",
        "length/last",
        *rl.ACCEPTANCE,
        "reward/first",
        "reward/last",
        "entropy/first",
        "entropy/last",
        "between_steps/slope",
        "drift/change",
        "drift/by_entropy",
        "drift/mismatch",
    ),
    contrasts=[
        Contrast("online_e2e_tv", "pre_rl_only", "length/last", role="primary", expected="+", least=0.05),
        Contrast("online_ce", "pre_rl_only", "length/last"),
        Contrast("online_e2e_tv", "online_ce", "length/last"),
        Contrast("online_e2e_tv", "online_ce", "length/mean"),
        Contrast("advantage_aware", "online_e2e_tv", "length/last"),
        Contrast("advantage_aware", "online_e2e_tv", "length/mean"),
        Contrast("online_e2e_tv", "pre_rl_only", "reward/last"),
        Contrast("advantage_aware", "online_e2e_tv", "reward/last"),
    ],
    head_of=(OBJECTIVES, "e2e_tv"),
    smoke_arms=("pre_rl_only", "advantage_aware"),
    smoke_settings=rl.SMOKE_SETTINGS,
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
