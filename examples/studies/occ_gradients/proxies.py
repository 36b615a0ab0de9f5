"""What OCC computes from a text, in the paper's form and in the released code's, by training's own classes."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from openrlhf_mtp.config.settings.regime import CoefficientSettings
from openrlhf_mtp.training.joint.coefficient import Coefficient, Scored
from openrlhf_mtp.training.joint.occ import OCC
from openrlhf_mtp.training.joint.occ_released import ReleasedOCC

SMOOTHING = 0.9


def proxies(parts: Sequence[Scored]) -> dict[str, float]:
    """Every form of the proxy, for depth 1 and λ₊ = 1.

    Args:
        parts: of one text, a micro-batch each.

    Returns:
        `occ`, `released`: of the whole text. `occ_bounded`: within [0, 1]. `occ_part`, `released_part`: mean over
        single parts, and their standard deviation as `..._spread`. `occ_smoothed`: the last of as many updates, a part
        each.
    """
    values = {
        "occ": _value(paper(), parts),
        "occ_bounded": _value(paper(bounds=(0.0, 1.0)), parts),
        "released": _value(released(), parts),
    }
    for name, make in (("occ", paper), ("released", released)):
        single = [_value(make(), [part]) for part in parts]
        values[f"{name}_part"], values[f"{name}_part_spread"] = mean(single), stdev(single)
    smoothed = paper(smoothing=SMOOTHING)
    values["occ_smoothed"] = [_value(smoothed, [part]) for part in parts][-1]
    return values


def paper(**settings: Any) -> OCC:
    """The paper's coefficient."""
    return OCC(CoefficientSettings(kind="occ", **settings), depths=1)


def released() -> ReleasedOCC:
    """The released code's."""
    return ReleasedOCC(CoefficientSettings(kind="occ", occ_variant="released_code"), depths=1)


def _value(coefficient: Coefficient, scored: Sequence[Scored]) -> float:
    return float(coefficient.decide(scored).values[0])
