"""The heads that are compared on a path.

start      which pre-RL head it begins as (`before_rl.STARTS`)
objective  what it minimizes during RL; None leaves it as it is
every      RL steps between two updates
text       "path": the rollouts of the path; "still": fresh responses of the first policy, as many, at its states
weighting  how much each response weighs (`weights.WEIGHTS`)
ahead      it is trained on the *next* policy's states and distributions, which no run could do
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.study import Contrast

from openrlhf_mtp.config.objectives import Objective
from replay.weights import Weighting

Start = Literal["kl", "e2e_tv", "e2e_tv_again"]


@dataclass(frozen=True)
class HeadArm:
    """One head on a path; the module says what the fields mean."""

    name: str
    start: Start
    objective: Objective | None = None
    every: int = 1
    text: Literal["path", "still"] = "path"
    weighting: Weighting = "none"
    ahead: bool = False


TRACKING: Sequence[HeadArm] = (
    HeadArm("frozen_kl", "kl"),
    HeadArm("frozen_e2e_tv", "e2e_tv"),
    HeadArm("online_ce", "e2e_tv", "ce"),
    HeadArm("online_kl", "kl", "kl"),
    HeadArm("online_e2e_tv", "e2e_tv", "e2e_tv"),
    HeadArm("online_e2e_tv_sampled", "e2e_tv", "e2e_tv_sampled"),
    HeadArm("online_e2e_tv_every_4", "e2e_tv", "e2e_tv", every=4),
    HeadArm("still_e2e_tv", "e2e_tv", "e2e_tv", text="still"),
    HeadArm("online_e2e_tv_again", "e2e_tv_again", "e2e_tv"),
)
"""S3': what keeps a head aligned. The last one differs from `online_e2e_tv` in the seed of its start alone (A/A)."""

ADVANTAGE: Sequence[HeadArm] = (
    HeadArm("ce_positive", "e2e_tv", "ce", weighting="positive"),
    HeadArm("ce_exponential", "e2e_tv", "ce", weighting="exponential_1"),
    HeadArm("ce_signed", "e2e_tv", "ce", weighting="signed"),
    HeadArm("ce_mixed", "e2e_tv", "ce", weighting="mixed"),
    HeadArm("tv_positive", "e2e_tv", "e2e_tv", weighting="positive"),
    HeadArm("tv_exponential_1", "e2e_tv", "e2e_tv", weighting="exponential_1"),
    HeadArm("tv_exponential_4", "e2e_tv", "e2e_tv", weighting="exponential_4"),
    HeadArm("ce_oracle_weights", "e2e_tv", "ce", weighting="oracle"),
    HeadArm("tv_oracle_weights", "e2e_tv", "e2e_tv", weighting="oracle"),
    HeadArm("tv_oracle_targets", "e2e_tv", "e2e_tv", ahead=True),
)
"""S6: whether weights by advantage can gain. The oracles are the ceiling of any such scheme."""

ARMS: Sequence[HeadArm] = (*TRACKING, *ADVANTAGE)

SMALLEST = 0.03
"""Tokens of acceptance length that would matter: one point of E/k at three depths."""
SMALLEST_ORACLE = 0.02

LATE, GROWTH, AT_REFITS = "length/late", "length/growth", "length/at_refits"

TRACKING_CONTRASTS: Sequence[Contrast] = (
    Contrast("online_e2e_tv", "frozen_e2e_tv", LATE, role="primary", expected="+", least=SMALLEST),
    Contrast("online_e2e_tv", "still_e2e_tv", LATE, expected="+", least=SMALLEST),
    Contrast("still_e2e_tv", "frozen_e2e_tv", LATE, expected="+", least=SMALLEST),
    Contrast("online_kl", "frozen_kl", LATE, expected="+", least=SMALLEST),
    Contrast("online_ce", "frozen_e2e_tv", LATE, expected="-", least=SMALLEST),
    Contrast("online_e2e_tv", "online_kl", LATE, expected="+", least=SMALLEST),
    Contrast("online_e2e_tv_sampled", "online_e2e_tv", LATE, expected="+", least=SMALLEST),
    Contrast("online_e2e_tv_every_4", "online_e2e_tv", LATE, expected="-", least=SMALLEST),
    Contrast("online_e2e_tv", "frozen_e2e_tv", GROWTH, expected="+", least=SMALLEST),
    Contrast("refit_bound", "online_e2e_tv", AT_REFITS, expected="+", least=SMALLEST),
    Contrast("online_e2e_tv_again", "online_e2e_tv", LATE, role="aa", least=SMALLEST),
)
ADVANTAGE_CONTRASTS: Sequence[Contrast] = (
    Contrast("ce_oracle_weights", "online_ce", LATE, role="primary", expected="+", least=SMALLEST_ORACLE),
    *(
        Contrast(arm, "online_ce", LATE, least=SMALLEST_ORACLE)
        for arm in ("ce_positive", "ce_exponential", "ce_signed", "ce_mixed")
    ),
    *(
        Contrast(arm, "online_e2e_tv", LATE, least=SMALLEST_ORACLE)
        for arm in ("tv_positive", "tv_exponential_1", "tv_exponential_4", "tv_oracle_weights")
    ),
    Contrast("tv_oracle_targets", "online_e2e_tv", LATE, expected="+", least=SMALLEST_ORACLE),
)
FAMILIES: Mapping[str, Sequence[Contrast]] = {
    "tracking": TRACKING_CONTRASTS,
    "advantage": ADVANTAGE_CONTRASTS,
}
"""Written down before the first path was recorded; README.md says why these signs. Two questions, two families: each
has its primary contrast and its own adjustment of p."""
