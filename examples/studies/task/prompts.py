"""Write the prompts of RL and of the evaluation as JSON lines with the keys `input` and `label`.

    python examples/studies/task/prompts.py --out runs/studies/data

Hardware: any. A second. Two files of walks' starts and goals (`walk.py`), whose labels hold the rules.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from task.dial_options import add_dial, dial_of
from task.walk import Dial, problems


def write_prompts(path: Path, dial: Dial, count: int, *, seed: int, held_out: bool) -> None:
    """`count` problems of one side of the split."""
    chosen = islice(problems(seed, held_out=held_out), count)
    lines = [json.dumps({"input": each.prompt, "label": each.label(dial)}) + "\n" for each in chosen]
    path.write_text("".join(lines), encoding="utf-8")


def write_data(out: Path, dial: Dial, *, train: int, evaluation: int, seed: int) -> None:
    """Write `train.jsonl` and `eval.jsonl` into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    write_prompts(out / "train.jsonl", dial, train, seed=seed, held_out=False)
    write_prompts(out / "eval.jsonl", dial, evaluation, seed=seed, held_out=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and eval.jsonl")
    parser.add_argument("--train", type=int, default=1600, help="prompts for the head and for RL")
    parser.add_argument("--eval", type=int, default=128, help="held-out prompts")
    parser.add_argument("--seed", type=int, default=1)
    add_dial(parser)
    args = parser.parse_args()
    write_data(args.out, dial_of(args), train=args.train, evaluation=args.eval, seed=args.seed)


if __name__ == "__main__":
    main()
