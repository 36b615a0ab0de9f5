"""The learning rate of each objective: the one whose short runs accept most on responses kept for that alone.

Every objective gets the same budget: each of three rates on two seeds that the study itself does not use, one for each
base policy, at a quarter of the length, from the same warm head and with the same fall to nothing. The rate is chosen
by the mean of `walked` over the two, and if the best rate is at an end of the grid the result says so.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from limited_heads.scale import TRAINED_AT

RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (101, 102)
SHARE = 0.25
"""Of the length of a run."""

WARM_RATE = 3e-3
"""At which heads are warmed with KL: the best of the three in pilots from a fresh start."""
LIMITED = (0.4, 0.75)
"""E/k of a warm head for which the study says something, by its plan."""
OVERLAP_BELOW = 0.9
"""And its overlap at depth 1."""

CHOSEN = "rates.json"
UNTUNED = 1e-3
"""The rate of the two-minute form, which tunes nothing: the product's default."""


def pilot_folder(study_runs: Path, objective: str, rate: float, seed: int) -> Path:
    """Where a short run is."""
    return study_runs / "pilots" / f"{objective}_{rate:g}" / f"seed_{seed}"


def warm_folder(study_runs: Path, seed: int) -> Path:
    """Where the warm head of a seed is."""
    return study_runs / "warm" / f"seed_{seed}"


def require_limited(study_runs: Path, seeds: Sequence[int]) -> None:
    """See that warm heads are what the plan asks for, before an arm runs.

    Raises:
        ValueError: one accepts too much or too little.
    """
    low, high = LIMITED
    for seed in seeds:
        path = warm_folder(study_runs, seed) / "measured.json"
        found = json.loads(path.read_text(encoding="utf-8"))["held_out"][str(TRAINED_AT)]
        if not (low <= found["walked"] <= high and found["alpha_1"] < OVERLAP_BELOW):
            raise ValueError(
                f"{path}: got E/k {found['walked']:.3f} and overlap {found['alpha_1']:.3f}, expected {low} to {high} "
                f"and below {OVERLAP_BELOW}; change the policies as plan.md says"
            )


def choose(walked: Mapping[float, Sequence[float]]) -> float:
    """The rate with the highest mean; of equal ones the lowest.

    >>> choose({1e-3: [0.5, 0.6], 3e-3: [0.4, 0.8], 3e-4: [0.1, 0.2]})
    0.003
    """
    return max(sorted(walked), key=lambda rate: float(np.mean(walked[rate])))


def read_pilots(study_runs: Path, objective: str) -> dict[float, list[float]]:
    """What the short runs of an objective came to, a value a seed.

    Raises:
        FileNotFoundError: one has not run.
    """
    found: dict[float, list[float]] = {}
    for rate in RATES:
        for seed in SEEDS:
            path = pilot_folder(study_runs, objective, rate, seed) / "measured.json"
            held_out = json.loads(path.read_text(encoding="utf-8"))["held_out"]
            found.setdefault(rate, []).append(held_out[str(TRAINED_AT)]["walked"])
    return found


def write_rates(study_runs: Path, objectives: Sequence[str]) -> None:
    """Choose for all objectives and keep what they were chosen by."""
    pilots = {objective: read_pilots(study_runs, objective) for objective in objectives}
    record = {
        objective: {
            "rate": choose(walked),
            "at_an_end": choose(walked) in (min(RATES), max(RATES)),
            "walked": {f"{rate:g}": values for rate, values in walked.items()},
        }
        for objective, walked in pilots.items()
    }
    (study_runs / CHOSEN).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def chosen_rate(study_runs: Path, objective: str) -> float:
    """The rate that was chosen for an objective."""
    record = json.loads((study_runs / CHOSEN).read_text(encoding="utf-8"))
    return float(record[objective]["rate"])
