"""One piece of the study's work, in a process of its own; each does nothing where its result is there.

    python examples/studies/limited_heads/stages.py policy 1 --runs RUNS
    python examples/studies/limited_heads/stages.py samples 1 --runs RUNS
    python examples/studies/limited_heads/stages.py warm 1 --runs RUNS
    python examples/studies/limited_heads/stages.py pilot e2e_tv 0.001 101 --runs RUNS
    python examples/studies/limited_heads/stages.py run OBJECTIVE SEED ORDER OUT --runs RUNS

`study.py` calls them in this order, several at a time if asked. One that was cut off continues (policy, samples) or
starts over (warm, pilot, run: minutes).
"""

import argparse
import sys
from pathlib import Path

import torch

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from text.base_policy import make, stream_of
from text.corpus import paragraphs, split
from transformers import AutoTokenizer

from limited_heads import tuning
from limited_heads.runs import Recipe, load_policy, run
from limited_heads.samples import Samples, book_prompts, make_samples
from limited_heads.scale import (
    FULL,
    SMOKE,
    TEMPERATURES,
    TRAINED_AT,
    Scale,
    held_out,
    policy_folder,
    policy_of,
    sample_folder,
)

NAME = "limited_heads"


def make_policy(runs: Path, scale: Scale, policy: int) -> None:
    """Teach a base policy, if it is not there."""
    out = policy_folder(runs, policy)
    if not (out / "tokenizer.json").exists():  # written last
        make(out, seed=policy, steps=scale.steps, shape=scale.shape, lines=scale.paragraphs)


def make_all_samples(runs: Path, scale: Scale, policy: int) -> None:
    """Make its sets of responses, the small ones first: prompts of held-out text for those that measure."""
    folder = policy_folder(runs, policy)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_policy(folder)
    train, unread = (stream_of(tokenizer, part) for part in split(paragraphs()[: scale.paragraphs]))
    for name, sampling in sorted(scale.samples(policy).items(), key=lambda item: item[1].parts):
        stream = train if name.endswith("pool") else unread
        prompts = book_prompts(stream, sampling, rows=scale.part, width=scale.prompt)
        make_samples(sample_folder(runs, policy, name), model, sampling, prompts)


def warm_head(runs: Path, scale: Scale, seed: int) -> None:
    """Warm the head that all arms of a seed, or all its pilots, begin with: one pass with KL."""
    out, policy = tuning.warm_folder(runs / NAME, seed), policy_of(seed)
    if (out / "measured.json").exists():
        return
    recipe = Recipe(
        "kl", tuning.WARM_RATE, seed, anchors=scale.warm_anchors, batch=scale.batch, temperature=TRAINED_AT
    )
    pool, kept = (Samples(sample_folder(runs, policy, name)) for name in ("warm_pool", "tuning"))
    run(recipe, policy_folder(runs, policy), pool, {TRAINED_AT: kept}, out, keep_head=True)


def continuing(objective: str, rate: float, order: int, anchors: int, scale: Scale) -> Recipe:
    """The recipe of a head that is warm: no steps with KL first."""
    return Recipe(
        objective, rate, order, anchors=anchors, batch=scale.batch, temperature=TRAINED_AT, warmup_share=0.0
    )


def run_pilot(runs: Path, scale: Scale, objective: str, rate: float, seed: int) -> None:
    """A short run to choose a learning rate by."""
    out, policy = tuning.pilot_folder(runs / NAME, objective, rate, seed), policy_of(seed)
    if (out / "measured.json").exists():
        return
    recipe = continuing(objective, rate, seed, int(scale.anchors * tuning.SHARE), scale)
    pool, kept = (Samples(sample_folder(runs, policy, name)) for name in ("pool", "tuning"))
    start = tuning.warm_folder(runs / NAME, seed) / "head"
    run(recipe, policy_folder(runs, policy), pool, {TRAINED_AT: kept}, out, start=start)


def run_arm(runs: Path, scale: Scale, objective: str, seed: int, order: int, out: Path) -> None:
    """A run of the study: the warm head of a seed goes on, with responses in an order of its own number."""
    rate = tuning.chosen_rate(runs / NAME, objective) if scale is FULL else tuning.UNTUNED
    recipe, policy = continuing(objective, rate, order, scale.anchors, scale), policy_of(seed)
    pool = Samples(sample_folder(runs, policy, "pool"))
    kept = {
        temperature: Samples(sample_folder(runs, policy, held_out(temperature)))
        for temperature in TEMPERATURES
    }
    start = tuning.warm_folder(runs / NAME, seed) / "head"
    run(recipe, policy_folder(runs, policy), pool, kept, out, start=start)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["policy", "samples", "warm", "pilot", "run"])
    parser.add_argument("of", nargs="+")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    scale, of = SMOKE if args.smoke else FULL, args.of
    torch.set_num_threads(1)
    if args.stage == "policy":
        make_policy(args.runs, scale, int(of[0]))
    elif args.stage == "samples":
        make_all_samples(args.runs, scale, int(of[0]))
    elif args.stage == "warm":
        warm_head(args.runs, scale, int(of[0]))
    elif args.stage == "pilot":
        run_pilot(args.runs, scale, of[0], float(of[1]), int(of[2]))
    else:
        run_arm(args.runs, scale, of[0], int(of[1]), int(of[2]), Path(of[3]))


if __name__ == "__main__":
    main()
