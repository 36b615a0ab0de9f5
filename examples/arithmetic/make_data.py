"""Write the prompts of RL and of the evaluation as JSON lines with the keys `input` and `label`.

python examples/arithmetic/make_data.py --out runs/arithmetic/data
"""

import argparse
import json
from itertools import islice
from pathlib import Path

from problems import problems


def write_prompts(path: Path, count: int, *, seed: int, held_out: bool) -> None:
    """`count` problems of one side of the split."""
    chosen = islice(problems(seed, held_out=held_out), count)
    lines = [json.dumps({"input": problem.prompt, "label": problem.answer}) + "\n" for problem in chosen]
    path.write_text("".join(lines), encoding="utf-8")


def make_data(out: Path, train: int, evaluation: int, seed: int) -> None:
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
    parser.add_argument("--train", type=int, default=256, help="prompts for the head and for RL")
    parser.add_argument("--eval", type=int, default=128, help="held-out prompts")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    make_data(args.out, args.train, args.eval, args.seed)


if __name__ == "__main__":
    main()
