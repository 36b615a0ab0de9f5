"""Study 5 on a real language model: e2e TV against KL.

    python examples/studies/limited_heads_real/study.py --parallel 2    two CPU cores, no GPU; hours: see README.md
    python examples/studies/limited_heads_real/study.py --smoke         two minutes: two arms, one seed, a tiny policy

SmolLM2-135M-Instruct answers prompts of reasoning-gym; one block, one thirtieth of its layers, is warmed with KL on
such answers and goes on with other ones at the rates that study 5 chose. Measured along the path that an engine takes
through answers to other prompts. The plan is study 5's (../limited_heads/plan.md). After an interrupt it continues.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.main import main
from harness.study import Arm, Contrast, Place, Study, Values
from limited_heads import shown
from limited_heads.scale import policy_folder
from limited_heads.stages import SMOKE, make_policy
from limited_heads.study import LEAST
from limited_heads.work import run_stages, words_of

NAME = "limited_heads_real"
STAGES = Path(__file__).with_name("stages.py")


def script(arm: Arm, place: Place, runs: Path) -> list[str]:
    """The words after `python` of one run."""
    order = place.seed + arm.seed_offset
    of = ["run", str(arm.settings["objective"]), str(place.seed), str(order)]
    return words_of(STAGES, [*of, str(place.folder.absolute())], runs, smoke=place.smoke)


def prepare(runs: Path, smoke: bool, parallel: int) -> None:
    """The policy with its prompts, its responses, and the warm heads."""
    if smoke:
        _tiny_policy(runs)
    run_stages(STAGES, [["policy"]], runs, smoke=smoke, parallel=1)
    run_stages(STAGES, [["samples"]], runs, smoke=smoke, parallel=1)
    seeds = STUDY.seeds[:1] if smoke else STUDY.seeds
    run_stages(STAGES, [["warm", str(seed)] for seed in seeds], runs, smoke=smoke, parallel=parallel)


def _tiny_policy(runs: Path) -> None:
    """Study 5's smoke policy in the real one's place, and prompts of two lengths."""
    make_policy(runs, SMOKE, 1)
    real = runs / "real"
    real.mkdir(exist_ok=True)
    if not (real / "policy").exists():
        (real / "policy").symlink_to(policy_folder(runs, 1).absolute(), target_is_directory=True)
    (real / "data").mkdir(exist_ok=True)
    for name, count in (("train", 6), ("eval", 2)):
        lines = [json.dumps({"input": "And God said" + " unto him" * (n % 2)}) + "\n" for n in range(count)]
        (real / "data" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def measure(place: Place) -> Values:
    """What a run's head came to."""
    record = json.loads((place.folder / "measured.json").read_text(encoding="utf-8"))
    return {**record["held_out"]["1.0"], "lr": record["recipe"]["lr"]}


def figure(places: Mapping[str, Sequence[Place]]) -> Figure:
    """E/k, and reach and overlap by depth."""
    return shown.figure(places, measure, [("walked", "T = 1")])


STUDY = Study(
    name=NAME,
    question="Does e2e TV accept more drafts than KL on a real language model?",
    command="own",
    arms=[
        *(Arm(objective, {"objective": objective}) for objective in ("kl", "e2e_tv", "e2e_tv_sampled")),
        Arm("e2e_tv_again", {"objective": "e2e_tv"}, seed_offset=1000),
    ],
    measure=measure,
    figure=figure,
    columns=[*shown.COLUMNS, shown.RATE],
    contrasts=[
        Contrast("e2e_tv", "kl", "walked", role="primary", expected="+", least=LEAST),
        Contrast("e2e_tv_sampled", "e2e_tv", "walked", expected="+", least=LEAST),
        Contrast("e2e_tv_sampled", "kl", "walked", expected="+", least=LEAST),
        Contrast("e2e_tv_again", "e2e_tv", "walked", role="aa", least=LEAST),
    ],
    smoke_arms=["kl", "e2e_tv"],
    smoke_settings=[],
    script=script,
    prepare=prepare,
)

if __name__ == "__main__":
    sys.exit(main(STUDY, __doc__))
