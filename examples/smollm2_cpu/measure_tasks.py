"""How often a policy solves the problems of each candidate: the table by which the example's tasks were chosen.

    python examples/smollm2_cpu/measure_tasks.py runs/real/policy --out runs/real/tasks.jsonl

A task is of use to GRPO if the policy solves it now and then, and if the samples of one prompt are neither all right
nor all wrong. Run again, it measures the candidates that are not in the result yet.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from reward import answer_of, is_right
from tasks import CANDIDATES, Task, problems

from openrlhf_mtp.bench.rollout_engine import prepare_process

SEED = 7
CONTEXT = 1024
NEW_TOKENS = 96


def engine(policy: Path) -> Any:
    """vLLM in this process, in float32 without a GPU."""
    import torch

    on_cpu = not torch.cuda.is_available()
    prepare_process(on_cpu=on_cpu)
    # without a GPU vLLM would claim nearly all memory for its cache
    on_host = (
        {"dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 2 * 2**30} if on_cpu else {}
    )
    from vllm import LLM

    return LLM(str(policy), max_model_len=CONTEXT, max_num_seqs=64, seed=0, **on_host)


def measure(llm: Any, task: Task, prompts: int, samples: int, temperature: float) -> dict[str, Any]:
    """One row: `solved` (share of responses), `mixed` (share of prompts), mean `tokens`, share `cut` at the limit."""
    from vllm import SamplingParams

    rows = list(problems(task, SEED, prompts))
    parameters = SamplingParams(n=samples, temperature=temperature, max_tokens=NEW_TOKENS)
    requests = llm.chat([row["input"] for row in rows], parameters, use_tqdm=False)
    responses = [one for request in requests for one in request.outputs]
    right = [
        [is_right(answer_of(one.text), row["label"]) for one in request.outputs]
        for row, request in zip(rows, requests, strict=True)
    ]
    return {
        "task": task.name,
        "temperature": temperature,
        "prompts": prompts,
        "samples": samples,
        "solved": fmean(map(fmean, right)),
        "mixed": fmean(0 < sum(group) < samples for group in right),
        "tokens": fmean(len(one.token_ids) for one in responses),
        "cut": fmean(one.finish_reason == "length" for one in responses),
        "examples": [one.text for one in responses[:3]],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, most solved first."""
    lines = ["| task | solved | mixed groups | tokens | cut |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: -row["solved"]):
        lines.append(
            f"| {row['task']} | {row['solved']:.0%} | {row['mixed']:.0%} | {row['tokens']:.0f} | {row['cut']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", type=Path, help="folder of the policy")
    parser.add_argument("--out", type=Path, required=True, help="result, a line for each candidate")
    parser.add_argument("--prompts", type=int, default=16, help="problems of each candidate")
    parser.add_argument("--samples", type=int, default=8, help="responses to each")
    parser.add_argument("--temperature", type=float, default=1.0)
    args = parser.parse_args()
    lines = args.out.read_text(encoding="utf-8").splitlines() if args.out.exists() else []
    rows = [json.loads(line) for line in lines]
    missing = [task for task in CANDIDATES if task.name not in {row["task"] for row in rows}]
    llm = engine(args.policy) if missing else None
    for task in missing:
        rows.append(measure(llm, task, args.prompts, args.samples, args.temperature))
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
        print(f"{task.name}: {rows[-1]['solved']:.0%}", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
