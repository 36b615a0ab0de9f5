"""The arms and the contrasts, written down before the first measurement; README.md says why these signs."""

from collections.abc import Sequence
from pathlib import Path

from harness.study import Contrast

NONE, NGRAM, SUFFIX = "none", "ngram", "suffix"
FROZEN, AGAIN, ONLINE = "frozen", "frozen_again", "online"
ARMS: Sequence[str] = (NONE, NGRAM, SUFFIX, FROZEN, AGAIN, ONLINE)
SMOKE_ARMS: Sequence[str] = (NONE, NGRAM, FROZEN, ONLINE)

SECONDS, TAIL, TO_REWARD, STEP, REWARD = (
    "seconds",
    "completion_p95",
    "seconds_to_reward",
    "step_seconds",
    "reward",
)
CLAIM = 0.77
"""MTP-RL's smallest reduction, -23.1 %, as a quotient."""

CONTRASTS: Sequence[Contrast] = (
    Contrast(ONLINE, NONE, SECONDS, ratio=True, role="primary", expected="-", least=0.05),
    Contrast(ONLINE, FROZEN, SECONDS, ratio=True, expected="-", least=0.02),
    Contrast(ONLINE, NGRAM, SECONDS, ratio=True, expected="-", least=0.05),
    Contrast(ONLINE, SUFFIX, SECONDS, ratio=True, expected="-", least=0.05),
    Contrast(FROZEN, NONE, SECONDS, ratio=True, expected="-", least=0.05),
    Contrast(NGRAM, NONE, SECONDS, ratio=True, least=0.05),
    Contrast(SUFFIX, NONE, SECONDS, ratio=True, least=0.05),
    Contrast(ONLINE, NONE, TAIL, ratio=True, expected="-", least=0.05),
    Contrast(ONLINE, NONE, TO_REWARD, ratio=True, expected="-", least=0.05),
    Contrast(ONLINE, NONE, REWARD, least=0.02),
    Contrast(AGAIN, FROZEN, SECONDS, ratio=True, role="aa", least=0.02),
)


def words(arms: Sequence[str], frozen: Path, online: Path) -> str:
    """The arms as `--arms` of `openrlhf-mtp bench rollout` takes them.

    Args:
        arms: names.
        frozen, online: folders of the heads from before RL and from RL.

    >>> words(["none", "online"], Path("a"), Path("b"))
    'none,online=b'
    """
    own = {FROZEN: f"{FROZEN}={frozen}", AGAIN: f"{AGAIN}={frozen}", ONLINE: f"{ONLINE}={online}"}
    return ",".join(own.get(arm, arm) for arm in arms)
