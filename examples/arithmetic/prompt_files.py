"""Prompts as JSON lines with the keys `input` and `label`, one file for RL and one for the evaluation.

Other examples with problems of their own use this one, too.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

Draw = Callable[[bool], Iterator[tuple[str, str]]]
"""Whether the problems are held out -> prompts with their labels, without end; no problem is on both sides."""


def write_prompt_files(out: Path, draw: Draw, *, train: int, evaluation: int) -> None:
    """Write `train.jsonl` and `eval.jsonl` into `out`.

    Args:
        out: made if it is missing.
        draw: the problems of one side.
        train: prompts for RL.
        evaluation: held-out prompts.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, count, held_out in (("train", train, False), ("eval", evaluation, True)):
        rows = [{"input": prompt, "label": label} for prompt, label in islice(draw(held_out), count)]
        lines = [json.dumps(row) + "\n" for row in rows]
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def prompts_parser(description: str | None, *, train: int, evaluation: int) -> argparse.ArgumentParser:
    """The options of a script that writes these files, with its usual numbers of prompts."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl and eval.jsonl")
    parser.add_argument("--train", type=int, default=train, help="prompts for RL")
    parser.add_argument("--eval", type=int, default=evaluation, help="held-out prompts")
    parser.add_argument("--seed", type=int, default=1)
    return parser
