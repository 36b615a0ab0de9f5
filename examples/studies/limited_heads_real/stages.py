"""One piece of the work, in a process of its own; each does nothing where its result is there.

    python examples/studies/limited_heads_real/stages.py policy --runs RUNS
    python examples/studies/limited_heads_real/stages.py samples --runs RUNS
    python examples/studies/limited_heads_real/stages.py warm SEED --runs RUNS
    python examples/studies/limited_heads_real/stages.py run OBJECTIVE SEED ORDER OUT --runs RUNS

RUNS/real/policy    an ordinary Hugging Face folder. `examples/smollm2_cpu/prepare.py` makes it if it is not there, so
                    another model of the Qwen2 or Llama family can take its place.
RUNS/real/data      prompts, likewise
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from limited_heads import tuning
from limited_heads.runs import Recipe, load_policy, run
from limited_heads.samples import Samples, Sampling, make_samples
from transformers import AutoTokenizer, GenerationConfig

from limited_heads_real.prompts import batches, read_prompts

NAME = "limited_heads_real"
PREPARE = Path(__file__).parents[2] / "smollm2_cpu" / "prepare.py"


@dataclass(frozen=True)
class Scale:
    """Sizes; responses end by themselves, so what they come to is in the result.

    Attributes:
        train, held_out: prompts.
        times: responses of each prompt, in each set.
        side_by_side: prompts that are sampled together.
        longest: tokens of a prompt; longer ones are left out.
        new_tokens: of a response.
        anchors: that a head is warmed on, and as many of other responses that an arm goes on for, each once.
        batch: responses of an optimizer step.
    """

    train: int = 320
    held_out: int = 48
    times: int = 9
    side_by_side: int = 4
    longest: int = 256
    new_tokens: int = 96
    anchors: int = 60_000
    batch: int = 8


FULL = Scale()
SMOKE = Scale(train=6, held_out=2, times=2, longest=64, new_tokens=12, anchors=60, batch=2)


def make_policy(runs: Path, scale: Scale) -> None:
    """The policy and its prompts."""
    policy, data = runs / "real" / "policy", runs / "real" / "data"
    wanted = [] if (policy / "tokenizer.json").exists() else ["--policy", str(policy)]
    if not (data / "eval.jsonl").exists():
        wanted += ["--data", str(data), "--train", str(scale.train), "--eval", str(scale.held_out)]
    if wanted:
        subprocess.run([sys.executable, str(PREPARE), *wanted], check=True)


def make_all_samples(runs: Path, scale: Scale) -> None:
    """Responses to the held-out prompts, then two sets to the others: to warm heads on, and for the arms."""
    folder = runs / "real" / "policy"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_policy(folder)
    for number, (name, of) in enumerate({"eval": "eval", "train": "train", "warm": "train"}.items()):
        prompts = read_prompts(runs / "real" / "data" / f"{of}.jsonl", tokenizer)
        parts = batches(prompts, most=scale.side_by_side, longest=scale.longest)
        sampling = Sampling(len(parts), 1.0, seed=50 + number, new_tokens=scale.new_tokens, times=scale.times)
        make_samples(runs / "real" / name, model, sampling, parts.__getitem__, end_tokens(folder, tokenizer))


def end_tokens(folder: Path, tokenizer: Any) -> list[int]:
    """Tokens that end a response, as the policy's folder says."""
    ends = GenerationConfig.from_pretrained(folder).eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return [ends] if isinstance(ends, int) else list(ends)


def warm_head(runs: Path, scale: Scale, seed: int) -> None:
    """Warm the head that all arms of a seed begin with: one pass with KL."""
    out = tuning.warm_folder(runs / NAME, seed)
    if (out / "measured.json").exists():
        return
    recipe = Recipe("kl", tuning.UNTUNED, seed, anchors=scale.anchors, batch=scale.batch)
    pool, kept = (Samples(runs / "real" / name) for name in ("warm", "eval"))
    run(recipe, runs / "real" / "policy", pool, {1.0: kept}, out, keep_head=True)


def run_arm(runs: Path, scale: Scale, objective: str, seed: int, order: int, out: Path) -> None:
    """A run from the warm head of a seed, at the rate that study 5 chose for its objective."""
    rate = tuning.chosen_rate(runs / "limited_heads", objective) if scale is FULL else tuning.UNTUNED
    recipe = Recipe(objective, rate, order, anchors=scale.anchors, batch=scale.batch, warmup_share=0.0)
    pool, kept = (Samples(runs / "real" / name) for name in ("train", "eval"))
    start = tuning.warm_folder(runs / NAME, seed) / "head"
    run(recipe, runs / "real" / "policy", pool, {1.0: kept}, out, start=start)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["policy", "samples", "warm", "run"])
    parser.add_argument("of", nargs="*")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    scale, of = SMOKE if args.smoke else FULL, args.of
    torch.set_num_threads(1)
    if args.stage == "policy":
        make_policy(args.runs, scale)
    elif args.stage == "samples":
        make_all_samples(args.runs, scale)
    elif args.stage == "warm":
        warm_head(args.runs, scale, int(of[0]))
    else:
        run_arm(args.runs, scale, of[0], int(of[1]), int(of[2]), Path(of[3]))


if __name__ == "__main__":
    main()
