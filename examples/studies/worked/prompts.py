"""Write the prompts of RL and of the evaluation as JSON lines with the keys `input` and `label`.

    python examples/studies/worked/prompts.py --out runs/studies/replay/data

Hardware: any. A second. Problems of `problems.py`, whose labels hold the rules.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2] / "arithmetic"))

from prompt_files import prompts_parser, write_prompt_files

from worked.problems import problems


def write_data(out: Path, *, train: int, evaluation: int, seed: int) -> None:
    """Write `train.jsonl` and `eval.jsonl` into `out`."""

    def draw(held_out: bool) -> Iterator[tuple[str, str]]:
        return ((each.prompt, each.label) for each in problems(seed, held_out=held_out))

    write_prompt_files(out, draw, train=train, evaluation=evaluation)


def main() -> None:
    """Command line."""
    args = prompts_parser(__doc__, train=800, evaluation=64).parse_args()
    write_data(args.out, train=args.train, evaluation=args.eval, seed=args.seed)


if __name__ == "__main__":
    main()
