"""Write the prompts of RL and of the evaluation as JSON lines with the keys `input` and `label`.

    python examples/studies/worked/prompts.py --out runs/studies/replay/data

Hardware: any. A second. Problems of `problems.py`, whose labels hold the rules.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from worked.problems import problems


def write_prompts(path: Path, count: int, *, seed: int, held_out: bool) -> None:
    """`count` problems of one side of the split."""
    chosen = islice(problems(seed, held_out=held_out), count)
    lines = [json.dumps({"input": each.prompt, "label": each.label}) + "\n" for each in chosen]
    path.write_text("".join(lines), encoding="utf-8")


def write_data(out: Path, *, train: int, evaluation: int, seed: int) -> None:
    """Write `train.jsonl` and `eval.jsonl` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_prompts(out / "train.jsonl", train, seed=seed, held_out=False)
    write_prompts(out / "eval.jsonl", evaluation, seed=seed, held_out=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and eval.jsonl")
    parser.add_argument("--train", type=int, default=800, help="prompts for RL")
    parser.add_argument("--eval", type=int, default=64, help="held-out prompts")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write_data(args.out, train=args.train, evaluation=args.eval, seed=args.seed)


if __name__ == "__main__":
    main()
