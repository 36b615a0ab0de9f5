"""Teach a small transformer from scratch to walk, until it is a fair but not a good walker: the studies' base policy.

    python examples/studies/task/base_policy.py --out runs/studies/policy

Hardware: one or two CPU cores, no GPU. Minutes: about 5. Result: a Hugging Face folder of 0.6 million parameters whose
sampled responses earn a mean reward of about 0.3 on held-out problems, and `base_policy.json` with the exams and the
entropy it has where it chooses a move, and where it writes the digits of a place.

Next-token cross-entropy on the reference walker's walks (`walk.py`); architecture and optimizers are those of
`examples/arithmetic/teach.py`. Lessons end at the first exam inside the wanted band: how much the policy can still
learn from RL is what the band decides.
"""

import argparse
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

STUDIES = Path(__file__).parents[1]
sys.path[:0] = [str(STUDIES), str(STUDIES.parent / "arithmetic")]

import byte_tokenizer  # noqa: E402
from teach import Optimizers, build_model  # noqa: E402

from task.dial_options import add_dial, dial_of  # noqa: E402
from task.reward import grade, response_of  # noqa: E402
from task.walk import Dial, Problem, problems, walk  # noqa: E402

BATCH = 32
EXAM_EVERY, EXAM_PROBLEMS = 20, 128
BAND = (0.25, 0.38)
KINDS = ("move", "tens", "units")
"""What a response's character is, by its position modulo three."""


@dataclass(frozen=True)
class Exam:
    """One measurement on held-out problems after `step` batches and `seconds`; `entropy` in nats by kind of token."""

    step: int
    seconds: float
    loss: float
    reward: float
    valid: float
    solved: float
    entropy: dict[str, float]


class Lessons:
    """Batches of walks, `ids` and `labels` [B, T]; all are of one length, and labels are -100 at the prompt."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, dial: Dial, seed: int) -> None:
        self.tokenizer, self.dial = tokenizer, dial
        self.stream, self.rng = problems(seed, held_out=False), random.Random(seed)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next batch."""
        chosen = [next(self.stream) for _ in range(BATCH)]
        pages = [p.prompt + walk(p, self.dial, self.rng).text + byte_tokenizer.EOS for p in chosen]
        ids = self.tokenizer(pages, return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[:, : len(chosen[0].prompt)] = -100
        return ids, labels


@torch.no_grad()
def examine(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, dial: Dial, held_out: list[Problem]
) -> dict[str, object]:
    """Reward, its parts and the entropy by kind of token, over one response a problem sampled at temperature 1."""
    prompts = torch.tensor(tokenizer([problem.prompt for problem in held_out])["input_ids"])
    done = model.eval().generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=dial.response_tokens + 1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    model.train()
    texts = tokenizer.batch_decode(done.sequences, skip_special_tokens=True)
    rules = [json.loads(problem.label(dial)) for problem in held_out]
    grades = [
        grade(response_of(text, problem.prompt), rule)
        for text, problem, rule in zip(texts, held_out, rules, strict=True)
    ]
    surprise = [torch.distributions.Categorical(logits=logits.float()).entropy() for logits in done.logits]
    per_token = torch.stack(surprise[: dial.response_tokens])
    return {
        "reward": sum(each.reward for each in grades) / len(grades),
        "valid": sum(each.valid for each in grades) / len(grades),
        "solved": sum(each.solved for each in grades) / len(grades),
        "entropy": {kind: per_token[at::3].mean().item() for at, kind in enumerate(KINDS)},
    }


def teach(out: Path, dial: Dial, *, band: tuple[float, float], max_seconds: float, seed: int) -> Exam:
    """Take lessons until an exam's reward is in the band, and write the policy; raises `TimeoutError` without one."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer.build()
    pupil = build_model(tokenizer).train()
    lessons, optimizers = Lessons(tokenizer, dial, seed), Optimizers(pupil)
    stream = problems(seed, held_out=True)
    held_out = [next(stream) for _ in range(EXAM_PROBLEMS)]
    exams: list[Exam] = []
    started, step = time.monotonic(), 0
    while not exams or not band[0] <= exams[-1].reward <= band[1]:
        ids, labels = lessons.batch()
        loss = cross_entropy(pupil(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        optimizers.step()
        step += 1
        if step % EXAM_EVERY == 0:
            seconds = time.monotonic() - started
            exams.append(Exam(step, seconds, loss.item(), **examine(pupil, tokenizer, dial, held_out)))
            print(json.dumps(rounded(exams[-1])), file=sys.stderr, flush=True)
            if seconds > max_seconds:
                raise TimeoutError(
                    f"reward {exams[-1].reward:.2f} after {seconds:.0f} s, wanted {band[0]} to {band[1]}: "
                    "give more --max-seconds, or an easier dial"
                )
    pupil.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {"seed": seed, "dial": asdict(dial), "exams": [rounded(exam) for exam in exams]}
    (out / "base_policy.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return exams[-1]


def rounded(exam: Exam) -> dict[str, object]:
    """The exam with four digits."""
    return json.loads(json.dumps(asdict(exam)), parse_float=lambda text: round(float(text), 4))


def main() -> None:
    """Command line; ends with an error if the band was not reached in time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the policy to")
    parser.add_argument("--reward", type=float, nargs=2, default=BAND, help="band in which to stop")
    parser.add_argument("--max-seconds", type=float, default=900, help="give up after this time")
    parser.add_argument("--seed", type=int, default=0)
    add_dial(parser)
    args = parser.parse_args()
    try:
        teach(args.out, dial_of(args), band=tuple(args.reward), max_seconds=args.max_seconds, seed=args.seed)
    except TimeoutError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
