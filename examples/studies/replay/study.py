"""The study `replay`: record RL runs, then train every head on the same paths.

    python examples/studies/replay/study.py                     everything that is missing, one thing after the other
    python examples/studies/replay/study.py --stages teach heads record
    python examples/studies/replay/study.py --paths policy_1_falls_11 --stages record extract walk
    python examples/studies/replay/study.py --smoke             two minutes: an untaught policy, one path of three steps

Two CPU cores, no GPU; minutes by stage are in README.md beside this file. Every stage continues where it was cut off.
The plan is in README.md and `arms.py`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.study import STUDIES
from worked import base_policy, prompts

from replay import before_rl, outcome, pool, refit
from replay.arms import ARMS, HeadArm
from replay.recordings import (
    PATHS,
    SECOND_OF_A_PAIR,
    Recording,
    drift,
    extract,
    first_step,
    record,
    step_count,
)
from replay.walk import walk_path


@dataclass(frozen=True)
class Scale:
    """How large a form of the study is.

    Attributes:
        paths, arms: which.
        steps: RL steps of a path.
        prompts: of a step; each has 8 responses, in the two-minute form 4.
        stage, refit_stage: the stage before RL, and that of a refit.
        refits: numbers of updates after which there is a refit.
        solved: share of problems at which a base policy's lessons end.
        lessons: most batches of lessons.
        overrides: settings of the two-minute form's run.
    """

    paths: Sequence[Recording]
    arms: Sequence[HeadArm]
    steps: int
    prompts: int
    responses: int
    stage: before_rl.Stage
    refit_stage: before_rl.Stage
    refits: Sequence[int]
    solved: float
    lessons: int
    tokens: int
    rate: float = 3e-4
    overrides: Sequence[str] = ()


FULL = Scale(
    paths=PATHS,
    arms=ARMS,
    steps=64,
    prompts=8,
    responses=8,
    stage=before_rl.Stage(batch=64, batches=64, passes=6),
    refit_stage=before_rl.Stage(batch=64, batches=14, passes=10),
    refits=(10, 50, 60),
    solved=base_policy.ENOUGH,
    lessons=base_policy.PLAN.steps,
    tokens=112,
)
SMOKE = Scale(
    paths=PATHS[:1],
    arms=[arm for arm in ARMS if arm.name in ("frozen_e2e_tv", "online_e2e_tv", "tv_oracle_targets")],
    steps=3,
    prompts=4,
    responses=4,
    stage=before_rl.Stage(batch=16, batches=4, passes=2),
    refit_stage=before_rl.Stage(batch=16, batches=4, passes=1),
    refits=(2,),
    solved=0.0,
    lessons=4,
    tokens=24,
    overrides=(
        "rollout.batch_size=4",
        "rollout.n_samples_per_prompt=4",
        "rollout.micro_batch_size=16",
        "rollout.max_new_tokens=24",
        "train.batch_size=16",
        "train.micro_batch_size=16",
    ),
)


@dataclass(frozen=True)
class Folders:
    """Where things are below the study's folder of runs."""

    root: Path

    def policy(self, number: int) -> Path:
        """A base policy."""
        return self.root / f"policy_{number}"

    def pool(self, number: int, name: str) -> Path:
        """Responses of a base policy: `train` for the stage before RL, `still` for the control."""
        return self.root / f"pool_{number}" / name

    def heads(self, number: int) -> Path:
        """The starting heads of a base policy."""
        return self.root / f"heads_{number}"

    def path(self, path: Recording) -> Path:
        """A path: `run`, `states`, `arms`."""
        return self.root / "paths" / path.name


def teach(scale: Scale, at: Folders) -> None:
    """The base policies and the prompts."""
    for number in sorted({path.policy for path in scale.paths}):
        if not (at.policy(number) / "base_policy.json").exists():
            base_policy.teach(at.policy(number), seed=number, enough=scale.solved, max_steps=scale.lessons)
    for path in scale.paths:
        out = at.path(path) / "data"
        prompts.write_data(out, train=scale.steps * scale.prompts, evaluation=32, seed=path.seed)


def heads(scale: Scale, at: Folders) -> None:
    """The pools of the base policies, and the starting heads."""
    stage = scale.stage
    each = scale.prompts * scale.responses
    for number in sorted({path.policy for path in scale.paths}):
        policy, train = at.policy(number), at.pool(number, "train")
        wanted = (stage.batches + stage.held_out) * stage.batch
        pool.fill(train, policy, seed=number, responses=wanted, tokens=scale.tokens)
        still = at.pool(number, "still")
        pool.fill(still, policy, seed=number + 50, responses=scale.steps * each, tokens=scale.tokens)
        for start in sorted({arm.start for arm in scale.arms}):
            before_rl.train(at.heads(number) / start, policy, train, start, stage, number)


def record_paths(scale: Scale, at: Folders) -> None:
    """The RL runs."""
    for path in scale.paths:
        record(
            path,
            at.path(path) / "run",
            head=at.heads(path.policy) / "e2e_tv" / "head",
            policy=at.policy(path.policy),
            data=at.path(path) / "data",
            overrides=scale.overrides,
        )


def extract_states(scale: Scale, at: Folders) -> None:
    """The states of every step."""
    for path in scale.paths:
        extract(at.path(path) / "run", at.path(path) / "states", {*scale.refits, *SECOND_OF_A_PAIR})


def walk(scale: Scale, at: Folders) -> None:
    """All arms along all paths."""
    for path in scale.paths:
        folder = at.path(path)
        assert step_count(folder / "states") == scale.steps, f"{folder}: record and extract come first"
        assert first_step(folder / "states") == scale.prompts * scale.responses
        walk_path(
            scale.arms,
            folder / "arms",
            states=folder / "states",
            heads=at.heads(path.policy),
            still=at.pool(path.policy, "still"),
            policy=at.policy(path.policy),
            rate=scale.rate,
            keep=scale.refits,
        )


def refits(scale: Scale, at: Folders) -> None:
    """The bound on all paths."""
    for path in scale.paths:
        folder = at.path(path)
        refit.refit_path(
            folder / "arms" / refit.NAME,
            run=folder / "run",
            states=folder / "states",
            after=list(scale.refits),
            stage=scale.refit_stage,
            tokens=scale.tokens,
            seed=path.seed,
        )


PILOT = Recording(policy=2, regime="falls", seed=1, live="frozen")
PILOT_STEPS = 10


def pilot(scale: Scale, at: Folders, rate: float) -> dict[str, float]:
    """How far the policy moves at a learning rate, in ten steps with a seed that no path has."""
    folder = at.root / "pilot" / f"rate_{rate:g}"
    each = scale.prompts * PILOT_STEPS
    prompts.write_data(folder / "data", train=each, evaluation=32, seed=PILOT.seed)
    record(
        PILOT,
        folder / "run",
        head=at.heads(PILOT.policy) / "e2e_tv" / "head",
        policy=at.policy(PILOT.policy),
        data=folder / "data",
        overrides=[*scale.overrides, f"actor.adam.lr={rate}"],
    )
    extract(folder / "run", folder / "states")
    rows = drift(folder / "states")
    return {"rate": rate, "kl_step": median(row["kl_step"] for row in rows), "kl_start": rows[-1]["kl_start"]}


STAGES: dict[str, Callable[[Scale, Folders], None]] = {
    "teach": teach,
    "heads": heads,
    "record": record_paths,
    "extract": extract_states,
    "walk": walk,
    "refit": refits,
}


SHARED = ("teach", "heads")
"""Stages of a base policy; the others are done path by path, since a path's policies take much room until `extract`."""


def do(stages: Sequence[str], scale: Scale, at: Folders) -> None:
    """Do some stages, in the order of `STAGES`."""
    chosen = [name for name in STAGES if name in stages]
    for name in chosen:
        if name in SHARED:
            STAGES[name](scale, at)
    for path in scale.paths:
        for name in chosen:
            if name not in SHARED:
                STAGES[name](replace(scale, paths=[path]), at)


def main() -> int:
    """Parse, do what is missing, write the result; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="default runs/studies, with --smoke runs/studies-smoke")
    parser.add_argument("--smoke", action="store_true", help="the two-minute form")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES), help="do these alone")
    parser.add_argument("--paths", nargs="+", choices=[path.name for path in PATHS], help="take these alone")
    parser.add_argument(
        "--pilot",
        nargs="+",
        type=float,
        metavar="RATE",
        help="record ten steps at each learning rate, and end",
    )
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], help="walk these alone")
    args = parser.parse_args()
    scale = SMOKE if args.smoke else FULL
    paths = [path for path in scale.paths if not args.paths or path.name in args.paths]
    arms = [arm for arm in scale.arms if not args.arms or arm.name in args.arms]
    runs = args.runs or Path("runs/studies-smoke" if args.smoke else "runs/studies")
    at = Folders(runs / "replay")
    if args.pilot:
        for rate in args.pilot:
            print(pilot(scale, at, rate), flush=True)
        return 0
    do(args.stages, replace(scale, paths=paths, arms=arms), at)
    out = at.root / "result" if args.smoke else STUDIES / "replay"
    names = [*(arm.name for arm in scale.arms), refit.NAME]
    result = outcome.write_result({path: at.path(path) for path in scale.paths}, names, out)
    print(outcome.table(result) + f"\n{out / 'result.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
