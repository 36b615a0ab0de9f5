"""What the study compares, written down before it ran; plan.md says why these signs."""

from collections.abc import Sequence
from typing import Literal

from harness.study import Column, Contrast

Kind = Literal["gradient", "adam"]
KINDS: Sequence[Kind] = ("gradient", "adam")
COEFFICIENTS = (-1.0, 0.0, 0.01, 0.1, 1.0)

SMALLEST_CORRELATION = 0.5
"""A proxy that follows the true ratio less than this is none."""
SMALLEST_GAIN = 0.0002
"""Reward of a step: 100 steps add it up to 0.02, the smallest difference of reward that matters in study 4."""

PRIMARY_PROXY = "occ"
PROXIES = ("occ", "occ_bounded", "occ_smoothed", "occ_part", "released", "released_part")

CHANGE = Column("change", "change of the expected reward", 5)
EXPECTED: dict[float, Literal["+", "-"] | None] = {-1.0: "-", 0.01: "+", 0.1: "+", 1.0: None}


def arm(kind: str, coefficient: float) -> str:
    """A kind of step with a coefficient."""
    return f"{kind} {coefficient:g}"


GAINS: Sequence[Contrast] = tuple(
    Contrast(
        arm(kind, coefficient),
        arm(kind, 0.0),
        CHANGE.name,
        role="primary" if (kind, coefficient) == ("adam", 0.1) else "secondary",
        expected=EXPECTED[coefficient],
        least=SMALLEST_GAIN,
    )
    for kind in reversed(KINDS)
    for coefficient in COEFFICIENTS
    if coefficient
)
"""Pairs are paths: the mean over a path's checkpoints."""
