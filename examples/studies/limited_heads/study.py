"""Study 5: objectives where heads are limited.

    python examples/studies/limited_heads/study.py --parallel 2    two CPU cores, no GPU; about two hours
    python examples/studies/limited_heads/study.py --smoke         two minutes: two arms, one seed, a tiny policy

Seven ways to go on with the same warm head, on one pass over samples of a policy of eight layers that was taught on a
book: deep enough that one block cannot repeat what it does. Measured on held-out samples along the path that an
engine takes through them: accepted over drafted tokens (E/k), reach by depth, and how length falls with entropy from
temperature 0.4 to 0.8. What is expected, and when the study stops, is in plan.md. After an interrupt it continues.
Result: README.md.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.main import main
from harness.study import Arm, Column, Contrast, Place, Study, Values

from limited_heads import shown, tuning
from limited_heads.runs import slope
from limited_heads.scale import POLICIES, TEMPERATURES, TRAINED_AT
from limited_heads.work import run_stages, words_of

NAME = "limited_heads"
STAGES = Path(__file__).with_name("stages.py")
OBJECTIVES = ("kl", "e2e_tv", "e2e_tv_sampled", "tv", "lk_hybrid", "ce", "top_k_ce")
LEAST = 0.01
"""The smallest difference of E/k that would matter: 0.03 tokens of length at three depths."""


def script(arm: Arm, place: Place, runs: Path) -> list[str]:
    """The words after `python` of one run."""
    order = place.seed + arm.seed_offset
    of = ["run", str(arm.settings["objective"]), str(place.seed), str(order), str(place.folder.absolute())]
    return words_of(STAGES, of, runs, smoke=place.smoke)


def prepare(runs: Path, smoke: bool, parallel: int) -> None:
    """Base policies, their samples, warm heads, and (in the full form) the learning rates.

    Raises:
        ValueError: the warm heads are not limited as the plan asks.
    """
    policies = POLICIES[:1] if smoke else POLICIES
    for stage in ("policy", "samples"):
        of = [[stage, str(policy)] for policy in policies]
        run_stages(STAGES, of, runs, smoke=smoke, parallel=parallel)
    pilot_seeds = () if smoke else tuning.SEEDS
    seeds = [*pilot_seeds, *(STUDY.seeds[:1] if smoke else STUDY.seeds)]
    run_stages(STAGES, [["warm", str(seed)] for seed in seeds], runs, smoke=smoke, parallel=parallel)
    if smoke:
        return
    tuning.require_limited(runs / NAME, seeds)
    if (runs / NAME / tuning.CHOSEN).exists():
        return
    pilots = [
        ["pilot", objective, str(rate), str(seed)]
        for objective in OBJECTIVES
        for seed in tuning.SEEDS
        for rate in tuning.RATES
    ]
    run_stages(STAGES, pilots, runs, smoke=smoke, parallel=parallel)
    tuning.write_rates(runs / NAME, OBJECTIVES)


def measure(place: Place) -> Values:
    """What a run's head came to at the temperature it was trained at, its lengths at the others, and its slope."""
    record = json.loads((place.folder / "measured.json").read_text(encoding="utf-8"))
    by_temperature = {float(temperature): values for temperature, values in record["held_out"].items()}
    values: Values = {
        **by_temperature[TRAINED_AT],
        "slope": slope(by_temperature),
        "lr": record["recipe"]["lr"],
    }
    for temperature in TEMPERATURES:
        for name in ("walked", "length", "entropy"):
            values[f"{name}@{temperature:g}"] = by_temperature[temperature][name]
    return values


def figure(places: Mapping[str, Sequence[Place]]) -> Figure:
    """Reach by depth, E/k by temperature."""
    walked = [(f"walked@{temperature:g}", f"T = {temperature:g}") for temperature in TEMPERATURES]
    return shown.figure(places, measure, walked)


STUDY = Study(
    name=NAME,
    question="Which objective gives the most accepted drafts where the head cannot know what the policy knows?",
    command="own",
    arms=[
        *(Arm(objective, {"objective": objective}) for objective in OBJECTIVES),
        Arm("e2e_tv_again", {"objective": "e2e_tv"}, seed_offset=1000),
    ],
    measure=measure,
    figure=figure,
    columns=[
        *shown.COLUMNS,
        Column("walked@0.4", "E/k at T = 0.4"),
        Column("walked@0.8", "E/k at T = 0.8"),
        Column("slope", "slope (tokens per nat)"),
        shown.RATE,
    ],
    contrasts=[
        Contrast("e2e_tv", "kl", "walked", role="primary", expected="+", least=LEAST),
        Contrast("e2e_tv_sampled", "e2e_tv", "walked", expected="+", least=LEAST),
        Contrast("e2e_tv_sampled", "kl", "walked", expected="+", least=LEAST),
        Contrast("tv", "kl", "walked", expected="+", least=LEAST),
        Contrast("lk_hybrid", "kl", "walked", expected="+", least=LEAST),
        Contrast("kl", "ce", "walked", expected="+", least=LEAST),
        Contrast("top_k_ce", "kl", "walked", expected="-", least=LEAST),
        Contrast("e2e_tv", "kl", "reach_3", expected="+", least=LEAST),
        Contrast("e2e_tv", "kl", "slope", expected="+"),
        Contrast("e2e_tv_again", "e2e_tv", "walked", role="aa", least=LEAST),
    ],
    smoke_arms=["kl", "e2e_tv"],
    smoke_settings=[],
    seeds=(1, 2, 3, 4, 5),
    script=script,
    prepare=prepare,
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
