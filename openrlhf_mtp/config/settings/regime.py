"""Head training during RL: the regime, its coefficient, and advantage weights."""

from typing import Literal, Self

from pydantic import model_validator

from openrlhf_mtp.config.settings.setting import Settings, setting

Regime = Literal["frozen", "detach", "joint_ce", "joint_policy"]
Weighting = Literal["none", "positive", "sigmoid", "exponential"]


class CoefficientSettings(Settings):
    """Factor on the loss that reaches the policy in the joint regimes."""

    kind: Literal["fixed", "occ"] = setting(
        "fixed",
        unit="",
        help="fixed: a constant; occ: tracked, to gain most for the policy's objective (docs/occ.md)",
    )
    value: float = setting(0.1, unit="", help="the constant of kind fixed", ge=0)
    scale: float = setting(1.0, unit="", help="OCC's λ₊, the factor on the tracked coefficient", gt=0)
    occ_variant: Literal["paper", "released_code"] = setting(
        "paper",
        unit="",
        help="paper: ratio of sums over an optimizer step's tokens; released_code: the public code's mean of ratios",
    )
    smoothing: float = setting(
        0.0,
        unit="fraction",
        help="fraction of the previous optimizer step's coefficient in this one's; 0 disables smoothing",
        ge=0,
        lt=1,
    )
    bounds: tuple[float, float] | None = setting(
        None, unit="", help="minimum and maximum coefficient, which may be negative; null sets no bounds"
    )

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(
                f"bounds: got {list(self.bounds)}, expected the lower one first; for example [-1.0, 1.0]"
            )
        return self


class AdvantageSettings(Settings):
    """Weight of each sample in the head's loss, from its advantage (our design for MTP-RL's second stage)."""

    weighting: Weighting = setting(
        "none",
        unit="",
        help="none: equal weights; the others give samples with a higher advantage more weight",
    )
    temperature: float = setting(
        1.0,
        unit="advantage",
        help="scale of sigmoid and exponential; a smaller value separates samples more",
        gt=0,
    )

    @property
    def is_on(self) -> bool:
        """False when all samples count alike."""
        return self.weighting != "none"
