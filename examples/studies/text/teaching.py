"""Next-token training of a small policy that continues where it was cut off, bit for bit.

Muon for the matrices of the layers and AdamW for the rest, as in `examples/arithmetic/teach.py`. Batches are a function
of their number, so that a checkpoint need not hold the state of a generator.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen2ForCausalLM

Batch = tuple[Tensor, Tensor]
"""Tokens and labels [B, T]; a label is -100 where nothing is to be learned, and is not shifted."""

CHECKPOINT, LOG = "teaching.pt", "teaching.jsonl"


@dataclass(frozen=True)
class Plan:
    """How long and how fast to teach: the rates rise over `warmup` steps, stay, and fall linearly over the last ones.

    `last_share` of the rates is left at the end of the fall, which takes the share `fall` of all steps.
    """

    steps: int
    muon_lr: float = 5e-3
    adam_lr: float = 3e-3
    warmup: int = 15
    fall: float = 0.5
    last_share: float = 0.05
    report_every: int = 10
    save_every: int = 20

    def share(self, step: int) -> float:
        """Factor on both learning rates at a step, from 0."""
        rise = min(1.0, (step + 1) / self.warmup)
        begin = self.steps * (1.0 - self.fall)
        fallen = min(1.0, max(0.0, (step - begin) / max(1.0, self.steps * self.fall)))
        return rise * (1.0 - fallen * (1.0 - self.last_share))


def optimizers(model: Qwen2ForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embedding, norms and biases."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers." in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "layers." not in n]
    return [
        torch.optim.Muon(matrices, lr=plan.muon_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=plan.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


class Pupil:
    """A policy in training, with its optimizers and the number of steps it has taken."""

    def __init__(self, model: Qwen2ForCausalLM, plan: Plan, folder: Path) -> None:
        self.model, self.plan, self.folder = model.train(), plan, folder
        self.parts = optimizers(model, plan)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            self._load()

    def lesson(self, batch: Batch) -> float:
        """One optimizer step; returns the loss before it, in nats a token."""
        ids, labels = batch
        share = self.plan.share(self.step)
        for part, rate in zip(self.parts, (self.plan.muon_lr, self.plan.adam_lr), strict=True):
            for group in part.param_groups:
                group["lr"] = rate * share
        loss = cross_entropy(self.model(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for part in self.parts:
            part.step()
            part.zero_grad()
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state: dict[str, Any] = {
            "step": self.step,
            "model": self.model.state_dict(),
            "parts": [part.state_dict() for part in self.parts],
        }
        partial = self.folder / f".{CHECKPOINT}"
        torch.save(state, partial)
        os.replace(partial, self.folder / CHECKPOINT)

    def _load(self) -> None:
        state = torch.load(self.folder / CHECKPOINT, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        for part, kept in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(kept)


def teach(
    model: Qwen2ForCausalLM,
    batch_at: Callable[[int], Batch],
    plan: Plan,
    folder: Path,
    *,
    examine: Callable[[Qwen2ForCausalLM], dict[str, float]] | None = None,
    examine_every: int = 100,
) -> None:
    """Teach to the plan's end, from the folder's checkpoint if there is one.

    Args:
        model: the policy, trained in place, in float32.
        batch_at: the batch of a step, from 0; the same whenever it is asked.
        plan: steps and rates.
        folder: for the checkpoint, and a line of `teaching.jsonl` every few steps.
        examine: measures the model in evaluation mode; what it returns goes into the log.
        examine_every: steps between measurements; the last step is measured too.
    """
    pupil = Pupil(model, plan, folder)
    begun, started = pupil.step, time.monotonic()
    while pupil.step < plan.steps:
        loss = pupil.lesson(batch_at(pupil.step))
        step, is_last = pupil.step, pupil.step == plan.steps
        row = {"step": step, "loss": round(loss, 4)}
        if examine is not None and (step % examine_every == 0 or is_last):
            with torch.no_grad():
                row |= {name: round(value, 4) for name, value in examine(model.eval()).items()}
            model.train()
        if step % plan.report_every == 0 or is_last:
            _report(folder, row, (time.monotonic() - started) / (step - begun) * (plan.steps - step))
        if step % plan.save_every == 0 or is_last:
            pupil.save()


def _report(folder: Path, row: dict[str, float], seconds_left: float) -> None:
    """A line into the log, and one for whoever watches."""
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")
    print(f"{row}  about {seconds_left / 60:.0f} min left", file=sys.stderr, flush=True)
