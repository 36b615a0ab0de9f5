"""Second stage of study 7: rewards of runs with OCC, in the paper's form and in the released code's.

    python examples/studies/occ_rewards/study.py --parallel 2    two CPU cores, no GPU; hours: see README.md
    python examples/studies/occ_rewards/study.py --second-look   seeds 6 to 8, if the first five have not decided
    python examples/studies/occ_rewards/study.py --smoke         two minutes: two arms, one seed, two steps

GRPO on study 6's task from its base policies and its e2e TV heads, 100 steps of four updates, and at the end the reward
on 500 held-out problems × 4 responses. It refuses to begin unless the gradient stage says that something could show.
The plan is the gradient stage's (../occ_gradients/plan.md). After an interrupt it continues.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import rl
from harness.main import main
from harness.study import STUDIES, Arm, Contrast, Place, Study
from replay.recordings import JOB
from replay.study import FULL, SMOKE, Folders, do
from worked import prompts

from occ_rewards.looks import ALL_SEEDS, FIRST_LOOK, LAST, first_look, why_not

NAME = "occ_rewards"
STEPS, HELD_OUT, SMOKE_STEPS, SMOKE_HELD_OUT = 100, 500, 2, 4
MATTERS = 0.02
"""Reward: as in study 4."""

SETTINGS: Mapping[str, object] = {
    "train.batch_size": 16,
    "train.micro_batch_size": 16,
    "actor.dual_clip": 3.0,
    "eval.n_samples_per_prompt": 4,
    "eval.steps": STEPS,
    "ckpt.save_steps": 25,
    "ckpt.save_hf": False,
    "mtp.record.rollouts": False,
}
"""Where a run differs from study 6's: four updates a rollout, the gradient stage's dual clip, an evaluation at the end,
nothing recorded."""

SMOKE_SETTINGS = (
    *SMOKE.overrides,
    "train.batch_size=8",
    "train.micro_batch_size=8",
    f"eval.steps={SMOKE_STEPS}",
)


def arm(name: str, seed_offset: int = 0, **settings: object) -> Arm:
    """An arm with these settings of `mtp`."""
    return Arm(name, {f"mtp.{key}": value for key, value in settings.items()}, seed_offset)


def occ(name: str, variant: str, scale: float) -> Arm:
    """An arm with a tracked coefficient."""
    kind = {"coefficient.kind": "occ", "coefficient.occ_variant": variant, "coefficient.scale": scale}
    return arm(name, regime="joint_policy", **kind)


def policy_of(seed: int) -> int:
    """The base policy of a run's seed; seeds take turns."""
    return 1 if seed % 2 else 2


def data(runs: Path, seed: int) -> Path:
    """The prompts of a seed."""
    return runs / NAME / "data" / f"seed_{seed}"


def script(arm: Arm, place: Place, runs: Path) -> list[str]:
    """The words after `python` of one run: study 6's job with the arm's settings."""
    at, here = Folders(runs / "replay"), data(runs, place.seed).absolute()
    policy = 1 if place.smoke else policy_of(place.seed)
    settings = {
        "actor.model_name_or_path": at.policy(policy).absolute(),
        "mtp.head": (at.heads(policy) / "e2e_tv" / "head").absolute(),
        "data.prompt_dataset": here / "train.jsonl",
        "eval.dataset": here / "eval.jsonl",
        "reward.remote_url": STUDIES / "worked" / "reward.py",
        "train.seed": place.seed + arm.seed_offset,
        **SETTINGS,
        **arm.settings,
    }
    words = [
        f"{name}={json.dumps(value) if isinstance(value, bool) else value}"
        for name, value in settings.items()
    ]
    resume = any(place.folder.glob("checkpoints/**/latest"))
    return [
        *("-m", "openrlhf_mtp.cli.main", "train", str(JOB), "--out", str(place.folder.absolute())),
        *words,
        *(SMOKE_SETTINGS if place.smoke else ()),
        "--resume" if resume else "--overwrite",
    ]


def prepare(runs: Path, smoke: bool, parallel: int) -> None:
    """Base policies, heads and prompts."""
    do(["teach", "heads"], SMOKE if smoke else FULL, Folders(runs / "replay"))
    steps, held_out = (SMOKE_STEPS, SMOKE_HELD_OUT) if smoke else (STEPS, HELD_OUT)
    each = SMOKE.prompts if smoke else FULL.prompts
    for seed in FIRST_LOOK[:1] if smoke else ALL_SEEDS:
        prompts.write_data(data(runs, seed), train=steps * each, evaluation=held_out, seed=200 + seed)


STUDY = Study(
    name=NAME,
    question="Does OCC, as published or as released, raise the reward?",
    command="own",
    arms=[
        arm("detach", regime="detach"),
        arm("detach_again", regime="detach", seed_offset=1000),
        occ("occ", "paper", 1.0),
        occ("occ_released_0.1", "released_code", 0.1),
        occ("occ_released_1", "released_code", 1.0),
    ],
    measure=rl.measure,
    figure=rl.regimes_figure,
    columns=rl.columns(
        "eval/last",
        "reward/first",
        "reward/last",
        "entropy/last",
        "length/last",
        "coefficient/mean",
        "alignment/mean",
        "magnitude/mean",
    ),
    contrasts=[
        Contrast("occ_released_1", "detach", "eval/last", role="primary", expected="+", least=MATTERS),
        Contrast("occ_released_0.1", "detach", "eval/last", expected="+", least=MATTERS),
        Contrast("occ", "detach", "eval/last", expected="+", least=MATTERS),
        Contrast("detach_again", "detach", "eval/last", role="aa", least=MATTERS),
    ],
    smoke_arms=("detach", "occ_released_1"),
    smoke_settings=SMOKE_SETTINGS,
    seeds=ALL_SEEDS,
    script=script,
    prepare=prepare,
)


def run() -> int:
    """Run the first look or, if it has not decided, the second; returns the exit code."""
    reason = why_not(STUDIES / "occ_gradients" / "result.json")
    if reason is not None and not {"--smoke", "--help", "-h"} & set(sys.argv):
        print(f"the second stage does not begin: {reason}", file=sys.stderr)
        return 1
    result = STUDIES / NAME / "result.json"
    second = "--second-look" in sys.argv
    if not second:
        return main(replace(STUDY, seeds=FIRST_LOOK), __doc__)
    sys.argv.remove("--second-look")
    decision = first_look(json.loads(result.read_text(encoding="utf-8"))) if result.exists() else "incomplete"
    if decision != "go on":
        print(f"no second look: the first one's result is {decision!r}", file=sys.stderr)
        return 1
    print(f"second look: compare p of the primary contrast with {LAST}", file=sys.stderr)
    return main(STUDY, __doc__)


if __name__ == "__main__":
    sys.exit(run())
