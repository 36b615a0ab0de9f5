"""The command line of a study."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.assets import FULL, SMOKE, make_assets
from harness.jobs import job_file
from harness.results import table, write_result
from harness.runs import RunsFailed, run_all
from harness.study import Study


def main(study: Study, description: str) -> int:
    """Parse, run what is missing, write the result; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=Path, help="where runs go; default runs/studies, with --smoke runs/studies-smoke"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="the two-minute form: fewer arms, one seed, a few steps"
    )
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in study.arms], help="run these alone")
    parser.add_argument("--seeds", nargs="+", type=int, choices=study.seeds, help="run these alone")
    parser.add_argument("--write-jobs", action="store_true", help="write the arms' job files and end")
    parser.add_argument("--result-only", action="store_true", help="run nothing; write what is there")
    args = parser.parse_args()
    if args.write_jobs:
        for arm in study.arms if study.script is None else ():
            print(job_file(study, arm))
        return 0
    runs = args.runs or Path("runs/studies-smoke" if args.smoke else "runs/studies")
    chosen = _only(study, args.arms, args.seeds)
    code = 0 if args.result_only else _run(chosen, runs, smoke=args.smoke, parallel=args.parallel)
    out = runs / study.name / "result" if args.smoke else study.folder
    result = write_result(study, study.places(runs, args.smoke), out)
    print(table(study, result) + f"\n{out / 'result.json'}")
    return code


def _run(study: Study, runs: Path, *, smoke: bool, parallel: int) -> int:
    """The shared things, the study whose heads are needed, and the study itself."""
    try:
        if study.prepare is not None:
            study.prepare(runs, smoke, parallel)
        else:
            make_assets(runs, SMOKE if smoke else FULL, list(study.seeds[:1] if smoke else study.seeds))
        if study.head_of is not None and not smoke:
            source, arm = study.head_of
            run_all(_only(source, [arm], study.seeds), runs, smoke=False, parallel=parallel)
        run_all(study, runs, smoke=smoke, parallel=parallel)
    except RunsFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def _only(study: Study, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> Study:
    """The study with some of its arms and seeds alone, where given."""
    kept = [arm for arm in study.arms if not arms or arm.name in arms]
    return replace(study, arms=kept, seeds=seeds or study.seeds)
