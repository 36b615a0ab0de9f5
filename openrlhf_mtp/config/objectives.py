"""The objectives of the head by name, with the facts about each that settings and checks need.

To add one, write `losses/<name>.py` with a function of that name (`losses.types.Objective`) and add its entry here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Facts:
    """One objective, as far as a job file is concerned.

    Attributes:
        measures_overlap: it trains for the overlap of two distributions, which a greedy draft throws away.
        needs_warm_head: a cold head overlaps the policy too little to learn from it, so it wants KL steps first.
    """

    measures_overlap: bool = False
    needs_warm_head: bool = False


OBJECTIVES: dict[str, Facts] = {
    "ce": Facts(),
    "kl": Facts(),
    "reverse_kl": Facts(),
    "tv": Facts(measures_overlap=True, needs_warm_head=True),
    "e2e_tv": Facts(measures_overlap=True, needs_warm_head=True),
    "e2e_tv_sampled": Facts(measures_overlap=True, needs_warm_head=True),
    "nla": Facts(measures_overlap=True),
    "lk_hybrid": Facts(measures_overlap=True),
}
"""Name in `mtp.objective` -> facts."""

if TYPE_CHECKING:
    Objective = str
else:
    Objective = Literal[tuple(OBJECTIVES)]  # pydantic and the settings page read the names off the type
