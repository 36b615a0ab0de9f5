"""Write the prompts of RL and of the evaluation as JSON lines with the keys `input` and `label`.

python examples/arithmetic/make_data.py --out runs/arithmetic/data
"""

from collections.abc import Iterator
from pathlib import Path

from problems import problems
from prompt_files import prompts_parser, write_prompt_files


def make_data(out: Path, train: int, evaluation: int, seed: int) -> None:
    """Write `train.jsonl` and `eval.jsonl` into `out`."""

    def draw(held_out: bool) -> Iterator[tuple[str, str]]:
        return ((each.prompt, each.answer) for each in problems(seed, held_out=held_out))

    write_prompt_files(out, draw, train=train, evaluation=evaluation)


def main() -> None:
    """Command line."""
    args = prompts_parser(__doc__, train=256, evaluation=128).parse_args()
    make_data(args.out, args.train, args.eval, args.seed)


if __name__ == "__main__":
    main()
