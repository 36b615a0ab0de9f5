"""Download GSM8K and write train.jsonl and test.jsonl, one {"input": question, "label": number} a line.

python examples/gsm8k_qwen2.5-0.5b_1gpu/prepare.py --out data/gsm8k
"""

import argparse
import json
from pathlib import Path

INSTRUCTION = "Let's think step by step and put the final answer within \\boxed{}."


def row(question: str, solution: str) -> dict[str, str]:
    """One line of our files from one row of GSM8K, whose solutions end with `#### 1,234`."""
    _, marker, label = solution.rpartition("####")
    if not marker:
        raise ValueError(f"got a solution without ####, expected GSM8K's form: {solution[-80:]!r}")
    return {"input": f"{question.strip()}\n{INSTRUCTION}", "label": label.strip().replace(",", "")}


def main() -> None:
    """Write both splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/gsm8k"), help="folder for the two files")
    out = parser.parse_args().out

    from datasets import load_dataset

    out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        lines = [
            json.dumps(row(one["question"], one["answer"]))
            for one in load_dataset("openai/gsm8k", "main", split=split)
        ]
        (out / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{out / split}.jsonl: {len(lines)} problems")


if __name__ == "__main__":
    main()
