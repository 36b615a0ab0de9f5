"""How much of a fresh head's training has to be KL before e2e TV takes over?

    python examples/studies/limited_heads/warm_up.py --runs runs/studies --parallel 2

A fresh head, one pass over 600,000 anchors at the rate of the warm heads, with KL for a share of the steps and e2e TV
for the rest; a share of 1 is the study's warm head itself. Measured as the warm heads are. Needs the policies and
samples of study 5 (`study.py`). A run takes four minutes of one thread.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from limited_heads import tuning
from limited_heads.runs import Recipe, run
from limited_heads.samples import Samples
from limited_heads.scale import FULL, TRAINED_AT, policy_folder, policy_of, sample_folder
from limited_heads.work import run_stages

SHARES = (0.08, 0.25, 0.5, 0.75)
SCRIPT = Path(__file__)


def out_folder(runs: Path, share: float, seed: int) -> Path:
    """Where a run is."""
    return runs / "limited_heads" / "warm_up" / f"{share:g}" / f"seed_{seed}"


def run_share(runs: Path, share: float, seed: int) -> None:
    """One run, if it is not there."""
    out, policy = out_folder(runs, share, seed), policy_of(seed)
    if (out / "measured.json").exists():
        return
    recipe = Recipe(
        "e2e_tv",
        tuning.WARM_RATE,
        seed,
        anchors=FULL.warm_anchors,
        batch=FULL.batch,
        temperature=TRAINED_AT,
        warmup_share=share,
    )
    pool, kept = (Samples(sample_folder(runs, policy, name)) for name in ("warm_pool", "tuning"))
    run(recipe, policy_folder(runs, policy), pool, {TRAINED_AT: kept}, out)


def table(runs: Path, shares: Sequence[float], seeds: Sequence[int]) -> str:
    """E/k and overlap at depth 1 by share, as Markdown."""
    lines = ["| share of the steps with KL | seed | E/k | overlap at depth 1 |", "|---|---|---|---|"]
    for seed in seeds:
        folders = {share: out_folder(runs, share, seed) for share in shares}
        for share, folder in {**folders, 1.0: tuning.warm_folder(runs / "limited_heads", seed)}.items():
            if (folder / "measured.json").exists():
                record = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
                found = record["held_out"][str(TRAINED_AT)]
                lines.append(f"| {share:g} | {seed} | {found['walked']:.3f} | {found['alpha_1']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="study 5's folder of runs")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--seeds", type=int, nargs="+", default=tuning.SEEDS)
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("of", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.of:
        torch.set_num_threads(1)
        run_share(args.runs, float(args.of[0]), int(args.of[1]))
        return
    pieces = [[f"{share:g}", str(seed)] for share in args.shares for seed in args.seeds]
    run_stages(SCRIPT, pieces, args.runs, smoke=False, parallel=args.parallel)
    print(table(args.runs, args.shares, args.seeds))


if __name__ == "__main__":
    main()
