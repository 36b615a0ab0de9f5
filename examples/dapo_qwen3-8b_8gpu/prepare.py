"""Download DAPO-Math-17k and write train.jsonl, one {"input": problem, "label": integer} a line.

python examples/dapo_qwen3-8b_8gpu/prepare.py --out data/dapo
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def rows(source: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Lines of our file; the published set repeats its problems many times over, each is kept once."""
    labels: dict[str, str] = {}
    for one in source:
        labels.setdefault(one["prompt"][-1]["content"], str(one["reward_model"]["ground_truth"]))
    return [{"input": problem, "label": label} for problem, label in labels.items()]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/dapo"), help="folder for the file")
    out = parser.parse_args().out

    from datasets import load_dataset

    out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in rows(load_dataset("BytedTsinghua-SIA/DAPO-Math-17k", split="train"))]
    (out / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{out}/train.jsonl: {len(lines)} problems")


if __name__ == "__main__":
    main()
