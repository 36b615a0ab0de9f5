"""Teach a small transformer from scratch to add, until it is a fair but not a good solver.

    python examples/arithmetic/teach.py --out runs/arithmetic/policy

Plain PyTorch on the CPU: Qwen2's architecture with three layers and 0.6 million parameters, next-token cross-entropy on
worked additions of a careless teacher (see `problems.py`), Muon for the layers' matrices and AdamW for the rest. The
share of held-out problems answered rightly is measured as training goes and decides when to stop: the step from 0 to
the teacher's own share is sharp and comes at a different time on every machine. Writes an ordinary Hugging Face folder
and `teach.json` with the measured curve.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import byte_tokenizer
import torch
from problems import Problem, problems, worked
from reward import answer_of
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

FORGET = 0.75
"""A carry is due in nearly every second column: this teacher is right in 43 % of its additions."""
VOCAB_ROWS = 320
BATCH = 64
MUON_LR, ADAM_LR = 8e-3, 3e-3
WARMUP_STEPS, HOLD_STEPS, DECAY_STEPS, LAST_SHARE = 15, 175, 100, 0.1
"""The learning rates rise, stay, and fall to a tenth, where they remain: at their height they alone cost accuracy."""
FIRST_EXAM, EXAM_EVERY, EXAM_PROBLEMS = 150, 25, 256
RESPONSE_TOKENS = 48
USUAL_STEPS = 300


@dataclass(frozen=True)
class Exam:
    """One measurement: sampled accuracy on held-out problems after `step` batches and `seconds`."""

    step: int
    seconds: float
    loss: float
    accuracy: float


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """The untrained policy; vocabulary rows beyond the tokenizer's are padding and never a target."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCAB_ROWS,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Lessons:
    """Batches of worked additions, `ids` and `labels` [B, T]; labels are -100 at the prompt; no row needs padding."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer = tokenizer
        self.stream = problems(seed, held_out=False)
        self.rng = random.Random(seed)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next batch."""
        chosen = [next(self.stream) for _ in range(BATCH)]
        pages = [
            problem.prompt + worked(problem, FORGET, self.rng) + byte_tokenizer.EOS for problem in chosen
        ]
        ids = torch.tensor(self.tokenizer(pages)["input_ids"])
        labels = ids.clone()
        labels[:, : len(self.tokenizer(chosen[0].prompt)["input_ids"])] = -100
        return ids, labels


class Optimizers:
    """Muon for the matrices of the layers, AdamW for embeddings, norms and biases; one schedule for both."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers." in n]
        others = [p for n, p in model.named_parameters() if p.ndim != 2 or "layers." not in n]
        self.model = model
        self.parts = [
            torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(part, share_of_learning_rate) for part in self.parts
        ]

    def step(self) -> None:
        """Clip, update, clear the gradients."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for part, schedule in zip(self.parts, self.schedules, strict=True):
            part.step()
            part.zero_grad()
            schedule.step()


def share_of_learning_rate(step: int) -> float:
    """Factor on both learning rates at a step, from 0."""
    rise = min(1.0, (step + 1) / WARMUP_STEPS)
    fall = min(1.0, max(0.0, (step - HOLD_STEPS) / DECAY_STEPS))
    return rise * (1.0 - fall * (1.0 - LAST_SHARE))


@torch.no_grad()
def accuracy(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: list[Problem]) -> float:
    """Share of problems answered rightly by one response each, sampled at temperature 1."""
    prompts = torch.tensor(tokenizer([problem.prompt for problem in held_out])["input_ids"])
    ids = model.eval().generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=RESPONSE_TOKENS,
    )
    model.train()
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    right = [answer_of(t, p.prompt) == p.answer for t, p in zip(texts, held_out, strict=True)]
    return sum(right) / len(right)


def teach(out: Path, target: float, max_seconds: float, seed: int) -> float:
    """Train until the sampled accuracy reaches `target` or the time is up; returns the last accuracy."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer.build()
    model = build_model(tokenizer).train()
    lessons, optimizers = Lessons(tokenizer, seed), Optimizers(model)
    held_out = problems(seed, held_out=True)
    exam_problems = [next(held_out) for _ in range(EXAM_PROBLEMS)]
    started, curve, step = time.monotonic(), [Exam(0, 0.0, 0.0, 0.0)], 0
    with progress_display(target) as show:
        while curve[-1].accuracy < target and time.monotonic() - started < max_seconds:
            ids, labels = lessons.batch()
            loss = cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            loss.backward()
            optimizers.step()
            step += 1
            if step >= FIRST_EXAM and step % EXAM_EVERY == 0:
                measured = accuracy(model, tokenizer, exam_problems)
                curve.append(
                    Exam(step, round(time.monotonic() - started, 1), round(loss.item(), 4), measured)
                )
            show(step, time.monotonic() - started, loss.item(), curve[-1].accuracy)
    save(
        model, tokenizer, out, {"target": target, "seed": seed, "curve": [asdict(exam) for exam in curve[1:]]}
    )
    return curve[-1].accuracy


@contextmanager
def progress_display(target: float) -> Iterator[Callable[[int, float, float, float], None]]:
    """A bar on a terminal, a line every few batches elsewhere; the total is what it usually takes."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("teach", total=USUAL_STEPS)

        def show(step: int, seconds: float, loss: float, reached: float) -> None:
            rate = f"{step / seconds:.1f} batch/s"
            text = f"teach {step}  {rate}  loss {loss:.3f}  accuracy {reached:.2f}, until {target}"
            bar.update(task, completed=min(step, USUAL_STEPS - 1), description=text)
            if bar.disable and step % EXAM_EVERY == 0:
                left = max(0, USUAL_STEPS - step) * seconds / step
                print(f"{text}  about {left:.0f} s left", file=sys.stderr, flush=True)

        yield show


def save(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, lessons: dict[str, object]
) -> None:
    """Write the policy in bfloat16, as RL trains it, with its tokenizer and the record of how it was taught."""
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "teach.json").write_text(json.dumps(lessons, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Command line; ends with an error if the target was not reached in time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the policy to")
    parser.add_argument("--target", type=float, default=0.36, help="sampled held-out accuracy to stop at")
    parser.add_argument("--max-seconds", type=float, default=300, help="give up after this time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    reached = teach(args.out, args.target, args.max_seconds, args.seed)
    if reached < args.target:
        sys.exit(
            f"accuracy {reached:.2f} after {args.max_seconds:.0f} s, wanted {args.target}: give --max-seconds more"
        )


if __name__ == "__main__":
    main()
