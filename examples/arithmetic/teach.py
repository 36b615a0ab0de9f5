"""Teach a small transformer from scratch to add, until it is a fair but not a good solver.

    python examples/arithmetic/teach.py --out runs/arithmetic/policy

The policy that this wrote is in `policy/`, and the quickstart starts from it; `openrlhf-mtp quickstart --teach` runs
this first. Plain PyTorch on the CPU: Qwen2's architecture with three layers and 0.6 million parameters, next-token
cross-entropy, Muon for the layers' matrices and AdamW for the rest. A careful teacher works every problem out until
the pupil can; a hasty one then mostly guesses, until the pupil does too (see `problems.py`). Exams on held-out
problems decide when each is done: the step from 0 to nearly always right is sharp and comes at a different batch on
every machine. What ends lessons that lead nowhere is a number of batches, never the clock. Writes an ordinary Hugging
Face folder and `teach.json` with the exams, the seed and the versions.
"""

import argparse
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import byte_tokenizer
import torch
import transformers
from problems import Problem, guessed, problems, worked
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCAB_ROWS = 320
BATCH = 64
MUON_LR, ADAM_LR = 8e-3, 3e-3
WARMUP_STEPS, HOLD_STEPS, DECAY_STEPS, LAST_SHARE = 15, 150, 100, 0.15
"""The learning rates rise, stay, and fall to a seventh, where they remain: at their height they alone cost accuracy."""
EXAM_EVERY, EXAM_PROBLEMS, LAST_EXAM_PROBLEMS = 20, 256, 2048
MAX_BATCHES = 1000
"""A teacher's lessons end here without success; the careful one takes about 240, the hasty one 200."""
USUAL_STEPS = 440


class NothingLearned(RuntimeError):
    """A teacher gave all its batches and no exam had the accuracy it is after."""


@dataclass(frozen=True)
class Teacher:
    """Who gives the lessons: the share it works out (it guesses the rest), and the accuracy at which it is done."""

    name: str
    worked: float
    first_exam: int
    lowest: float
    highest: float


TEACHERS = (
    Teacher("careful", worked=1.0, first_exam=140, lowest=0.95, highest=1.0),
    Teacher("hasty", worked=0.4, first_exam=60, lowest=0.37, highest=0.42),
)


@dataclass(frozen=True)
class Exam:
    """One measurement: the accuracy on held-out problems after `step` batches."""

    step: int
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
    """Batches of lessons, `ids` and `labels` [B, T], padded on the right; labels are -100 at prompt and padding."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer = tokenizer
        self.stream = problems(seed, held_out=False)
        self.rng = random.Random(seed)

    def batch(self, worked_share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The next batch."""
        chosen = [next(self.stream) for _ in range(BATCH)]
        responses = [self.response(problem, worked_share) for problem in chosen]
        pages = [
            p.prompt + response + byte_tokenizer.EOS for p, response in zip(chosen, responses, strict=True)
        ]
        padded = self.tokenizer(pages, padding=True, padding_side="right", return_tensors="pt")
        labels = padded["input_ids"].masked_fill(padded["attention_mask"] == 0, -100)
        labels[:, : len(self.tokenizer(chosen[0].prompt)["input_ids"])] = -100
        return padded["input_ids"], labels

    def response(self, problem: Problem, worked_share: float) -> str:
        """What the teacher writes."""
        return worked(problem) if self.rng.random() < worked_share else guessed(problem, self.rng)


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
    """The probability that a response sampled at temperature 1 works its problem out rightly, mean over problems.

    Computed, not sampled: the same weights have the same accuracy whenever it is measured. Lucky guesses (one in two
    thousand) and right answers after wrong steps do not count.
    """
    prompt_tokens = len(tokenizer(held_out[0].prompt)["input_ids"])
    total = 0.0
    for at in range(0, len(held_out), EXAM_PROBLEMS):
        pages = [p.prompt + worked(p) + byte_tokenizer.EOS for p in held_out[at : at + EXAM_PROBLEMS]]
        ids = tokenizer(pages, return_tensors="pt")["input_ids"]
        log_probs = model(ids).logits[:, prompt_tokens - 1 : -1].float().log_softmax(-1)
        taken = log_probs.gather(-1, ids[:, prompt_tokens:, None]).squeeze(-1)
        total += taken.sum(-1).exp().sum().item()
    return total / len(held_out)


def exam_problems(count: int, seed: int) -> list[Problem]:
    """Held-out problems, the same for a seed."""
    return list(islice(problems(seed, held_out=True), count))


class School:
    """A pupil, its lessons, and the exams so far."""

    def __init__(self, seed: int, max_batches: int) -> None:
        torch.manual_seed(seed)
        self.tokenizer = byte_tokenizer.build()
        self.pupil = build_model(self.tokenizer).train()
        self.lessons, self.optimizers = Lessons(self.tokenizer, seed), Optimizers(self.pupil)
        self.problems = exam_problems(EXAM_PROBLEMS, seed)
        self.max_batches = max_batches
        self.step = 0
        self.exams: list[Exam] = []

    def attend(self, teacher: Teacher, show: Callable[["School", str, float], None]) -> None:
        """Take lessons until an exam gives the accuracy the teacher is after; raises `NothingLearned` without one."""
        begun, loss = self.step, 0.0
        while self.step < begun + self.max_batches:
            loss = self.lesson(teacher.worked)
            if self.step >= begun + teacher.first_exam and self.step % EXAM_EVERY == 0:
                measured = self.sit_exam(loss)
                if teacher.lowest <= measured <= teacher.highest:
                    return
            show(self, teacher.name, loss)
        raise NothingLearned(
            f"the {teacher.name} teacher gave all its {self.max_batches} batches: accuracy {self.sit_exam(loss):.2f} "
            f"after them, wanted {teacher.lowest} to {teacher.highest}. Try another --seed, or more --max-batches"
        )

    def sit_exam(self, loss: float) -> float:
        """Measure the accuracy and keep it among the exams."""
        measured = accuracy(self.pupil.eval(), self.tokenizer, self.problems)
        self.pupil.train()
        self.exams.append(Exam(self.step, round(loss, 4), round(measured, 4)))
        return measured

    def lesson(self, worked_share: float) -> float:
        """One batch; returns its loss."""
        ids, labels = self.lessons.batch(worked_share)
        loss = cross_entropy(self.pupil(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        self.optimizers.step()
        self.step += 1
        return loss.item()


def teach(out: Path, max_batches: int, seed: int) -> float:
    """Take both teachers' lessons and write the policy; returns its accuracy. Raises `NothingLearned`."""
    school = School(seed, max_batches)
    with progress_display() as show:
        for teacher in TEACHERS:
            school.attend(teacher, show)
    return save(school, out, seed)


@contextmanager
def progress_display() -> Iterator[Callable[[School, str, float], None]]:
    """A bar on a terminal, a line every few batches elsewhere; the total is what it usually takes."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task, started = bar.add_task("teach", total=USUAL_STEPS), time.monotonic()

        def show(school: School, teacher: str, loss: float) -> None:
            step, seconds = school.step, time.monotonic() - started
            text = f"teach ({teacher}) {step}  {step / seconds:.1f} batch/s  loss {loss:.3f}"
            if school.exams:
                text += f"  accuracy {school.exams[-1].accuracy:.2f}"
            bar.update(task, completed=min(step, USUAL_STEPS - 1), description=text)
            if bar.disable and step % EXAM_EVERY == 0:
                left = max(0, USUAL_STEPS - step) * seconds / step
                print(f"{text}  about {left:.0f} s left", file=sys.stderr, flush=True)

        yield show


def save(school: School, out: Path, seed: int) -> float:
    """Write the policy in bfloat16, half the size, with its tokenizer and its record; returns its accuracy as written.

    The last exam is that of the rounded weights, on eight times as many problems.
    """
    pupil = school.pupil.to(torch.bfloat16)
    pupil.save_pretrained(out)
    school.tokenizer.save_pretrained(out)
    last = accuracy(pupil.float().eval(), school.tokenizer, exam_problems(LAST_EXAM_PROBLEMS, seed))
    record = {
        "seed": seed,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "accuracy": round(last, 4),
        "problems": LAST_EXAM_PROBLEMS,
        "exams": [asdict(exam) for exam in school.exams],
    }
    (out / "teach.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return last


def main() -> None:
    """Command line; ends with an error if a teacher's batches did not bring the accuracy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the policy to")
    parser.add_argument("--max-batches", type=int, default=MAX_BATCHES, help="most batches of one teacher")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        teach(args.out, args.max_batches, args.seed)
    except NothingLearned as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
