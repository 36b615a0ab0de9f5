"""How head training meets the policy during RL: the regime, its coefficient, and weights by advantage."""

from typing import Literal, Self

from pydantic import model_validator

from openrlhf_mtp.config.settings.setting import Settings, setting

Regime = Literal["frozen", "detach", "joint_ce", "joint_policy"]
Weighting = Literal["none", "positive", "sigmoid", "exponential"]


class CoefficientSettings(Settings):
    """How much of the MTP loss reaches the policy, in the joint regimes."""

    kind: Literal["fixed", "occ"] = setting(
        "fixed",
        unit="",
        help="fixed: a constant; occ: tracked so that the policy's objective gains most from it",
    )
    value: float = setting(0.1, unit="1", help="the constant of kind fixed", ge=0)
    scale: float = setting(
        1.0, unit="1", help="OCC's lambda_plus, the factor on the tracked coefficient", gt=0
    )
    occ_variant: Literal["paper", "released_code"] = setting(
        "paper",
        unit="",
        help="paper: masked ratio of sums over the optimizer step's tokens, over all ranks; released_code: the public "
        "code's mean of per-token ratios, for comparison",
    )
    smoothing: float = setting(
        0.0,
        unit="fraction",
        help="share of the previous optimizer step's coefficient in this one's; 0 is off",
        ge=0,
        lt=1,
    )
    bounds: tuple[float, float] | None = setting(
        None, unit="1", help="least and greatest coefficient; unset is unbounded, negative values are allowed"
    )

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(
                f"bounds: got {list(self.bounds)}, expected the lower one first; for example [-1.0, 1.0]"
            )
        return self


class AdvantageSettings(Settings):
    """How much a sample weighs in the head's loss, by its advantage (our design for MTP-RL's second stage)."""

    weighting: Weighting = setting(
        "none",
        unit="",
        help="none: all alike; positive: samples with positive advantage, those at 0 by half; sigmoid, exponential: "
        "more weight the higher the advantage",
    )
    temperature: float = setting(
        1.0, unit="advantage", help="scale of sigmoid and exponential; smaller is sharper", gt=0
    )
