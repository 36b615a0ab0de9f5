"""The ratios of `openrlhf-mtp bench all` against the committed ones.

python -m ci.measurements runs/bench/bench_all.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ci.compare import compare, load_baseline, regressions
from ci.results import write

BASELINE = "measurements"
FILE = Path(__file__).with_suffix(".yaml")


def main(words: list[str] | None = None) -> int:
    """Compare, leave table and JUnit XML beside the file; 1 if a ratio is worse than its tolerance or missing."""
    parser = argparse.ArgumentParser(prog="python -m ci.measurements", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="bench_all.json")
    args = parser.parse_args(words)
    try:
        measured = json.loads(args.file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        parser.error(f"{args.file}: {problem}; `openrlhf-mtp bench all` writes it")
    if measured["smoke"]:
        parser.error(f"{args.file}: figures of smoke forms mean nothing; run `openrlhf-mtp bench all --full`")
    results = compare(measured, load_baseline(BASELINE, FILE))
    shown = os.environ.get("GITHUB_STEP_SUMMARY")
    write(args.file.parent, BASELINE, results, 0.0, step_summary=Path(shown) if shown else None)
    return int(bool(regressions(results)))


if __name__ == "__main__":
    sys.exit(main())
