"""The study `rollout_time`: whole rollouts of RL with and without drafts.

    python examples/studies/rollout_time/study.py               the stand-in, on the paths of study 6
    python examples/studies/rollout_time/study.py --subject real
    python examples/studies/rollout_time/study.py --pilot       choose the n-gram drafts
    python examples/studies/rollout_time/study.py --smoke       two minutes, on the path of study 6's two-minute form

Two quiet CPU cores, no GPU, 8 GB; minutes are in README.md beside this file, which is the plan. A point that was
measured is not measured again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.study import STUDIES
from replay.recordings import PATHS, drift
from replay.study import SMOKE as REPLAY_SMOKE
from replay.study import Folders

from openrlhf_mtp.bench.drafting import parse_arms, require
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.run import read_run
from rollout_time import outcome, timing
from rollout_time.arms import ARMS, SMOKE_ARMS, SUFFIX
from rollout_time.points import PILOT_UPDATES, UPDATES, Point, of_path, of_paths, of_real_run

STAGES = ("time", "rewards", "result")
PILOT_NGRAMS = ("ngram:2:4", "ngram:5:5")
REWARDS = "rewards.json"


@dataclass(frozen=True)
class Work:
    """What is measured and where it goes.

    Attributes:
        subject: its name.
        points: in order.
        arms: of each point.
        root: for the results of points.
        source: the runs of study 6, or the real run.
        problems, samples: of the rewards; no problems for a subject without.
        smoke: the two-minute form.
    """

    subject: str
    points: Sequence[Point]
    arms: Sequence[str]
    root: Path
    source: Path
    problems: int = 0
    samples: int = 4
    smoke: bool = False

    def place(self, point: Point) -> Path:
        """The folder of a point."""
        return self.root / self.subject / point.pair / point.name

    def last_points(self) -> dict[str, Point]:
        """The last point of each pair, whose policy gives the rewards."""
        return {point.pair: point for point in self.points}


def measure_times(work: Work) -> None:
    """All points."""
    for number, point in enumerate(work.points, start=1):
        print(f"[{number}/{len(work.points)}] {point.pair}, {point.name}", file=sys.stderr, flush=True)
        timing.measure(point, work.place(point), work.arms, smoke=work.smoke)


def measure_rewards(work: Work) -> None:
    """Rewards of each path's last policy, in a process of their own."""
    for number, (pair, point) in enumerate(work.last_points().items(), start=1):
        out = work.root / work.subject / pair / REWARDS
        if work.problems and not out.exists():
            words = [sys.executable, str(Path(__file__).with_name("rewards.py")), str(point.policy)]
            options = {"head": point.online, "out": out, "problems": work.problems, "samples": work.samples}
            given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            subprocess.run([*words, *given, "--seed", str(900 + number)], check=True)


def path_rewards(work: Work, pair: str) -> list[float]:
    """Rewards of the recorded run by step: of a path of study 6, or of the real run."""
    if work.subject == "real":
        steps, rewards = read_run(work.source / "rl").series(metrics.POLICY_REWARD)
        return [reward for step, reward in zip(steps, rewards, strict=True) if step > 0]
    (path,) = (path for path in PATHS if path.name == pair)
    return [row["reward"] for row in drift(Folders(work.source).path(path) / "states")]


def other_seconds(work: Work) -> float | None:
    """Median seconds of a step of the real run besides its rollout; None for the stand-in, whose run was small."""
    if work.subject != "real":
        return None
    run = read_run(work.source / "rl")
    (_, steps), (_, rollouts) = (run.series(name) for name in (metrics.TIME_STEP_S, metrics.TIME_ROLLOUT_S))
    return median(step - rollout for step, rollout in zip(steps, rollouts, strict=True))


def collect(work: Work) -> dict[str, object]:
    """The result of what was measured; a pair counts when all its points are there."""
    done = [point for point in work.points if timing.is_measured(work.place(point), work.arms)]
    missing = [f"{point.pair} {point.name}" for point in work.points if point not in done]
    pairs = {}
    for pair in work.last_points():
        wanted = [point for point in work.points if point.pair == pair]
        if all(point in done for point in wanted):
            rewards = work.root / work.subject / pair / REWARDS
            pairs[pair] = outcome.values_of(
                [(point, timing.read(work.place(point))) for point in wanted],
                json.loads(rewards.read_text(encoding="utf-8")) if rewards.exists() else None,
                path_rewards(work, pair),
                other_seconds(work),
            )
    return outcome.collect(work.subject, pairs, missing)


def pilot(work: Work) -> None:
    """One point with each form of n-gram drafts; the faster is the study's."""
    point = of_path(work.source, PATHS[0], PILOT_UPDATES)
    for ngram in PILOT_NGRAMS:
        out = work.root / "pilot" / ngram.replace(":", "_")
        timing.measure(point, out, ("none", ngram))
        print(ngram, timing.read(out)["arms"][ngram]["seconds_over_none"], flush=True)


def work_of(args: argparse.Namespace) -> Work:
    """The work that the command line asks for."""
    runs = args.runs or Path("runs/studies-smoke" if args.smoke else "runs/studies")
    root, replay = runs / "rollout_time", runs / "replay"
    if args.smoke:
        (path,), (updates,) = REPLAY_SMOKE.paths, REPLAY_SMOKE.refits
        points = [of_path(replay, path, updates)]
        return Work("stand_in", points, args.arms or SMOKE_ARMS, root, replay, problems=8, smoke=True)
    arms = args.arms or ARMS
    if args.subject == "real":
        return Work("real", list(of_real_run(args.real)), arms, root, args.real)
    return Work("stand_in", list(of_paths(replay, UPDATES)), arms, root, replay, problems=500)


def main() -> int:
    """Parse, measure what is missing, write the result; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="default runs/studies, with --smoke runs/studies-smoke")
    parser.add_argument("--real", type=Path, default=Path("runs/real"), help="the folder of `make real`")
    parser.add_argument("--subject", choices=("stand_in", "real"), default="stand_in")
    parser.add_argument("--smoke", action="store_true", help="the two-minute form")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES), help="do these alone")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, help="measure these alone; none has to be among them"
    )
    parser.add_argument("--pilot", action="store_true", help="measure the forms of n-gram drafts, and end")
    args = parser.parse_args()
    work = work_of(args)
    if SUFFIX in work.arms and "time" in args.stages and not args.pilot:
        try:
            require(parse_arms(f"none,{SUFFIX}", Path()))
        except JobError as problem:
            raise SystemExit(str(problem)) from None
    try:
        do(work, args.stages, is_pilot=args.pilot)
    except (FileNotFoundError, RuntimeError) as problem:
        raise SystemExit(str(problem)) from None
    return 0


def do(work: Work, stages: Sequence[str], *, is_pilot: bool) -> None:
    """The stages, or the pilot."""
    if is_pilot:
        pilot(work)
        return
    if "time" in stages:
        measure_times(work)
    if "rewards" in stages:
        measure_rewards(work)
    if "result" in stages:
        result = collect(work)
        outcome.write_result(result, work.root / "result" if work.smoke else STUDIES / "rollout_time")
        print(outcome.table(result))


if __name__ == "__main__":
    sys.exit(main())
