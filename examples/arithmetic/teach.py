"""Teach a small transformer from scratch to add, until it is a fair but not a good solver.

    python examples/arithmetic/teach.py --out runs/arithmetic/policy

Plain PyTorch on the CPU: Qwen2's architecture with three layers and 0.6 million parameters, next-token cross-entropy,
Muon for the layers' matrices and AdamW for the rest. A careful teacher works every problem out until the pupil can; a
hasty one then mostly guesses, until the pupil does too (see `problems.py`). Exams on held-out problems decide when
each is done: the step from 0 to nearly always right is sharp and comes at a different time on every machine. Writes an
ordinary Hugging Face folder and `teach.json` with the exams.
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
from problems import Problem, guessed, problems, worked
from reward import answer_of
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCAB_ROWS = 320
BATCH = 64
MUON_LR, ADAM_LR = 8e-3, 3e-3
WARMUP_STEPS, HOLD_STEPS, DECAY_STEPS, LAST_SHARE = 15, 150, 100, 0.15
"""The learning rates rise, stay, and fall to a seventh, where they remain: at their height they alone cost accuracy."""
EXAM_EVERY, EXAM_PROBLEMS = 20, 256
RESPONSE_TOKENS = 48
USUAL_STEPS = 320


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
    Teacher("hasty", worked=0.4, first_exam=60, lowest=0.34, highest=0.44),
)


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


class School:
    """A pupil, its lessons, and the exams so far."""

    def __init__(self, seed: int, max_seconds: float) -> None:
        torch.manual_seed(seed)
        self.tokenizer = byte_tokenizer.build()
        self.pupil = build_model(self.tokenizer).train()
        self.lessons, self.optimizers = Lessons(self.tokenizer, seed), Optimizers(self.pupil)
        held_out = problems(seed, held_out=True)
        self.exam_problems = [next(held_out) for _ in range(EXAM_PROBLEMS)]
        self.started, self.max_seconds = time.monotonic(), max_seconds
        self.step, self.exams = 0, [Exam(0, 0.0, 0.0, 0.0)]

    def attend(self, teacher: Teacher, show: Callable[["School", str, float], None]) -> None:
        """Take a teacher's lessons until an exam gives the accuracy it is after; raises `TimeoutError` without one."""
        first = self.step + teacher.first_exam
        while True:
            loss = self.lesson(teacher.worked)
            if self.step >= first and self.step % EXAM_EVERY == 0:
                measured = accuracy(self.pupil, self.tokenizer, self.exam_problems)
                self.exams.append(Exam(self.step, round(self.seconds, 1), round(loss, 4), measured))
                if teacher.lowest <= measured <= teacher.highest:
                    return
            show(self, teacher.name, loss)
            if self.seconds > self.max_seconds:
                wanted = f"{teacher.lowest} to {teacher.highest}"
                raise TimeoutError(
                    f"accuracy {self.exams[-1].accuracy:.2f} after {self.seconds:.0f} s of the {teacher.name} teacher, "
                    f"wanted {wanted}: give more --max-seconds"
                )

    def lesson(self, worked_share: float) -> float:
        """One batch; returns its loss."""
        ids, labels = self.lessons.batch(worked_share)
        loss = cross_entropy(self.pupil(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        self.optimizers.step()
        self.step += 1
        return loss.item()

    @property
    def seconds(self) -> float:
        """Time since the first lesson."""
        return time.monotonic() - self.started


def teach(out: Path, max_seconds: float, seed: int) -> float:
    """Take both teachers' lessons and write the policy; returns its accuracy."""
    school = School(seed, max_seconds)
    with progress_display() as show:
        for teacher in TEACHERS:
            school.attend(teacher, show)
    save(school, out, seed)
    return school.exams[-1].accuracy


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
        task = bar.add_task("teach", total=USUAL_STEPS)

        def show(school: School, teacher: str, loss: float) -> None:
            step, seconds = school.step, school.seconds
            text = f"teach ({teacher}) {step}  {step / seconds:.1f} batch/s  loss {loss:.3f}"
            text += f"  accuracy {school.exams[-1].accuracy:.2f}"
            bar.update(task, completed=min(step, USUAL_STEPS - 1), description=text)
            if bar.disable and step % EXAM_EVERY == 0:
                left = max(0, USUAL_STEPS - step) * seconds / step
                print(f"{text}  about {left:.0f} s left", file=sys.stderr, flush=True)

        yield show


def save(school: School, out: Path, seed: int) -> None:
    """Write the policy in bfloat16, as RL trains it, with its tokenizer and the record of its exams."""
    school.pupil.to(torch.bfloat16).save_pretrained(out)
    school.tokenizer.save_pretrained(out)
    record = {"seed": seed, "exams": [asdict(exam) for exam in school.exams[1:]]}
    (out / "teach.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Command line; ends with an error if the accuracy was not reached in time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the policy to")
    parser.add_argument("--max-seconds", type=float, default=300, help="give up after this time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        teach(args.out, args.max_seconds, args.seed)
    except TimeoutError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
