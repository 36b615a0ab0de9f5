"""Teach a small transformer from scratch to work problems out, until it is a fair but not a good solver.

    python examples/studies/worked/base_policy.py --out runs/studies/replay/policy_1 --seed 1

Hardware: one CPU core, no GPU. Minutes: 10 to 20. Result: a Hugging Face folder of 3.8 million parameters that solves
about three of ten held-out problems at temperature 1, and `base_policy.json` with the exams. Lessons end at the first
exam that is good enough. After an interrupt it continues from its last checkpoint.
"""

import argparse
import json
import random
import shutil
import sys
import time
from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

STUDIES = Path(__file__).parents[1]
sys.path[:0] = [str(STUDIES), str(STUDIES.parent / "arithmetic")]

import byte_tokenizer  # noqa: E402
from text.policy import Shape, build_policy  # noqa: E402
from text.teaching import Batch, Plan, Pupil  # noqa: E402

from worked.problems import SHARES, Problem, problems, solution  # noqa: E402
from worked.reward import grade  # noqa: E402

SHAPE = Shape(vocabulary=320, layers=8, width=192, inner=640, heads=3, kv_heads=1, context=256)
PLAN = Plan(steps=900, muon_lr=5e-3, adam_lr=3e-3, fall=0.75)
"""An upper end: lessons stop at the first exam with `ENOUGH`."""
BATCH, GROUP = 64, 4
EXAM_EVERY, EXAM_PROBLEMS, EXAM_TOKENS = 40, 160, 112
SAVE_EVERY = 10
ENOUGH = 0.25
"""Share of problems solved: RL still has much to find, and groups of eight rarely have equal rewards."""


class Lessons:
    """Batches of worked solutions, a function of their number; `ids` and `labels` [B, T] padded on the right.

    `GROUP` batches at a time are drawn together and dealt out by length, so that a third of a batch is not padding.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed

    def batch(self, step: int) -> Batch:
        """Batch number `step`; labels are -100 at prompt and padding."""
        group, at = divmod(step, GROUP)
        rng = random.Random(f"{self.seed}/{group}")
        drawn = list(islice(problems(rng.getrandbits(32), held_out=False), GROUP * BATCH))
        lessons = sorted(
            ((each, solution(each, rng)) for each in drawn), key=lambda pair: len(pair[0].prompt + pair[1])
        )
        order = rng.sample(range(GROUP), GROUP)
        part = lessons[order[at] * BATCH : (order[at] + 1) * BATCH]
        chosen = [each for each, _ in part]
        pages = [each.prompt + written + byte_tokenizer.EOS for each, written in part]
        padded = self.tokenizer(pages, padding=True, padding_side="right", return_tensors="pt")
        labels = padded["input_ids"].masked_fill(padded["attention_mask"] == 0, -100)
        for row, each in enumerate(chosen):
            labels[row, : len(each.prompt)] = -100
        return padded["input_ids"], labels


@torch.no_grad()
def examine(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: list[Problem]
) -> dict[str, float]:
    """Share solved in all and by family, tokens and entropy (nat a token), of a response each at temperature 1."""
    inputs = tokenizer([each.prompt for each in held_out], padding=True, return_tensors="pt")
    done = model.eval().generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=EXAM_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    model.train()
    written = done.sequences[:, inputs["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    grades = [grade(text, each.label) for text, each in zip(texts, held_out, strict=True)]
    counts = written != tokenizer.pad_token_id
    entropy = torch.stack(
        [torch.distributions.Categorical(logits=logits.float()).entropy() for logits in done.logits], dim=1
    )
    found = {
        "solved": sum(grades) / len(grades),
        "tokens": counts.sum().item() / len(grades),
        "entropy": (entropy * counts).sum().item() / counts.sum().item(),
    }
    for family in SHARES:
        own = [got for got, each in zip(grades, held_out, strict=True) if each.family == family]
        found[f"solved/{family}"] = sum(own) / max(1, len(own))
    return {name: round(value, 4) for name, value in found.items()}


def teach(out: Path, *, seed: int, enough: float, max_steps: int) -> dict[str, float]:
    """Take lessons until an exam shows `enough` problems solved, and write the policy.

    Raises:
        RuntimeError: no exam did.
    """
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer.build(max_length=SHAPE.context)
    pupil = Pupil(build_policy(SHAPE, tokenizer), PLAN, out / "lessons")
    lessons, held_out = Lessons(tokenizer, seed), list(islice(problems(seed, held_out=True), EXAM_PROBLEMS))
    started, begun, found = time.monotonic(), pupil.step, {"solved": -1.0}
    while found["solved"] < enough:
        if pupil.step >= max_steps:
            raise RuntimeError(
                f"solved {found['solved']:.2f} after {pupil.step} batches, wanted {enough}; give more --steps"
            )
        loss = pupil.lesson(lessons.batch(pupil.step))
        if pupil.step % EXAM_EVERY == 0 or pupil.step == max_steps:
            torch.manual_seed(pupil.step)
            found = examine(pupil.model, tokenizer, held_out)
            pace = (time.monotonic() - started) / (pupil.step - begun)
            print(f"{pupil.step} loss {loss:.3f} {pace:.1f} s a batch {found}", file=sys.stderr, flush=True)
        if pupil.step % SAVE_EVERY == 0:
            pupil.save()
    pupil.model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {"seed": seed, "steps": pupil.step, **found}
    (out / "base_policy.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(out / "lessons")  # the optimizers' state, which whoever copies the policy need not have
    return found


def main() -> None:
    """Command line; ends with an error if too little was learned."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the policy to")
    parser.add_argument("--seed", type=int, default=1, help="of the weights, the problems and the exams")
    parser.add_argument("--solved", type=float, default=ENOUGH, help="share of problems at which to stop")
    parser.add_argument("--steps", type=int, default=PLAN.steps, help="give up after so many batches")
    args = parser.parse_args()
    try:
        teach(args.out, seed=args.seed, enough=args.solved, max_steps=args.steps)
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
