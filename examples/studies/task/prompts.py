"""Write the prompts of RL and of the evaluation as JSON lines with the keys `input` and `label`.

    python examples/studies/task/prompts.py --out runs/studies/data

Hardware: any. A second. Two files of walks' starts and goals (`walk.py`), whose labels hold the rules.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2] / "arithmetic"))

from prompt_files import prompts_parser, write_prompt_files

from task.dial_options import add_dial, dial_of
from task.walk import Dial, problems


def write_data(out: Path, dial: Dial, *, train: int, evaluation: int, seed: int) -> None:
    """Write `train.jsonl` and `eval.jsonl` into `out`."""

    def draw(held_out: bool) -> Iterator[tuple[str, str]]:
        return ((each.prompt, each.label(dial)) for each in problems(seed, held_out=held_out))

    write_prompt_files(out, draw, train=train, evaluation=evaluation)


def main() -> None:
    """Command line."""
    parser = prompts_parser(__doc__, train=1600, evaluation=128)
    add_dial(parser)
    args = parser.parse_args()
    write_data(args.out, dial_of(args), train=args.train, evaluation=args.eval, seed=args.seed)


if __name__ == "__main__":
    main()
