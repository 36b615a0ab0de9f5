"""Study 7: does OCC's proxy follow the true gradients, and does any coefficient gain?

    python examples/studies/occ_gradients/study.py            one CPU core, no GPU; after study 6's stage `extract`
    python examples/studies/occ_gradients/study.py --smoke    a minute: tiny policies of its own, four checkpoints

At checkpoints of study 6's paths: the true inner product of the policy's and the head's gradients and OCC's optimum,
what OCC computes in its place, and what a step with each coefficient changes of the expected reward on held-out
problems. What is expected is in plan.md. After an interrupt it continues. Result: README.md beside this file.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from openrlhf_mtp.upstream.processes import prepare_process

prepare_process()  # before anything imports OpenRLHF

from harness.study import STUDIES  # noqa: E402
from replay.study import FULL as REPLAY  # noqa: E402
from replay.study import Folders  # noqa: E402
from transformers.utils import logging  # noqa: E402

from occ_gradients import smoke  # noqa: E402
from occ_gradients.checkpoints import CHECKPOINTS, Checkpoint, source_of  # noqa: E402
from occ_gradients.measure import FULL, Scale, measure  # noqa: E402
from occ_gradients.outcome import write_result  # noqa: E402
from occ_gradients.page import table  # noqa: E402
from occ_gradients.records import read_record, write_record  # noqa: E402

NAME = "occ_gradients"


def run(chosen: Sequence[Checkpoint], scale: Scale, paths: Folders, out: Path) -> None:
    """Measure what has no record yet, one checkpoint after the other."""
    for number, checkpoint in enumerate(chosen, start=1):
        record = out / f"{checkpoint.name}.json"
        if record.exists():
            continue
        source = source_of(
            checkpoint,
            paths.path(checkpoint.path),
            start=paths.heads(checkpoint.path.policy) / "e2e_tv" / "head",
            out=out / "heads",
            rate=REPLAY.rate,
        )
        found = measure(source, scale, checkpoint.seed)
        write_record(record, found)
        print(
            f"{number} of {len(chosen)}: {checkpoint.name}, {found['cpu_seconds']:.0f} s of processor time",
            file=sys.stderr,
            flush=True,
        )


def read(chosen: Sequence[Checkpoint], out: Path) -> tuple[dict[Checkpoint, Any], list[str]]:
    """The records that are there, and the names of the checkpoints without one."""
    found = {each: out / f"{each.name}.json" for each in chosen}
    records = {each: read_record(path) for each, path in found.items() if path.exists()}
    return records, [each.name for each in chosen if each not in records]


def main() -> int:
    """Parse, measure what is missing, write the result; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="default runs/studies, with --smoke runs/studies-smoke")
    parser.add_argument("--smoke", action="store_true", help="the short form, without study 6")
    parser.add_argument("--paths", nargs="+", metavar="PATH", help="measure the checkpoints of these alone")
    parser.add_argument("--result-only", action="store_true", help="measure nothing; write what is there")
    args = parser.parse_args()
    runs = args.runs or Path("runs/studies-smoke" if args.smoke else "runs/studies")
    below = runs / NAME
    places = below / "paths" if args.smoke else runs / "replay"
    checkpoints, scale = (smoke.CHECKPOINTS, smoke.SCALE) if args.smoke else (CHECKPOINTS, FULL)
    below.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    if args.smoke:
        smoke.make_paths(Folders(places))
    if not args.result_only:
        chosen = [each for each in checkpoints if not args.paths or each.path.name in args.paths]
        try:
            run(chosen, scale, Folders(places), below)
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 1
    records, missing = read(checkpoints, below)
    out = below / "result" if args.smoke else STUDIES / NAME
    print(table(write_result(records, missing, out)) + f"\n{out / 'result.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
