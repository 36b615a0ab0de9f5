"""All arms along one path, side by side: each step is read once, scored by every head, then learned by every head.

The head that RL step t's rollout is drafted with has learned from steps 1 to t - 1. So each arm is scored on step t
before it learns from it, as the engine's counters of that step would.
"""

import json
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim
from openrlhf_mtp.heads.formats.head_folder import save_head
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.row_writer import RowWriter
from replay.arms import HeadArm
from replay.learner import Learner, trunk_config
from replay.pool import batch_of
from replay.states import Step, load_step
from replay.weights import row_weights

SAVE_EVERY = 5
KEEP_HEAD_EVERY = 10
"""The heads of arms in `KEPT_HEADS` stay after so many steps, as the policies do (`recordings.KEEP_EVERY`)."""
KEPT_HEADS = ("online_e2e_tv",)
DONE = "done.json"


def head_after(arm: Path, step: int) -> Path:
    """The folder of an arm's head that has learned from steps 1 to `step`."""
    return arm / "heads" / f"after_{step:06d}"


class Walker:
    """One arm: its head, its log, and where it is on the path."""

    def __init__(self, arm: HeadArm, out: Path, head: Path, config: Any, rate: float) -> None:
        self.arm, self.out = arm, out
        settings = ObjectiveSettings(objective=arm.objective or "e2e_tv")
        self.learner = Learner.load(head, config, settings, HeadOptim(lr=rate))
        self.at, self.seconds = 0, 0.0
        kept = out / "state.pt"
        if kept.exists():
            state = torch.load(kept, weights_only=False)
            self.learner.load_state(state)
            self.at, self.seconds = state["at"], state["seconds"]
        self.writer = RowWriter(out, after_step=self.at or None)

    @property
    def is_done(self) -> bool:
        """It has come to the end of its path."""
        return (self.out / DONE).exists()

    def step(self, number: int, step: Step, still: Step) -> None:
        """Score on the step and learn from it; a step that is behind already is passed over."""
        if number <= self.at:
            return
        started = time.process_time()
        row = self._row(number, step, still)
        row.pop(metrics.TIME_MTP_S, None)
        self.writer.append({metrics.STEP: number, **row})
        self.at = number
        self.seconds += time.process_time() - started

    def _row(self, number: int, step: Step, still: Step) -> dict[str, float]:
        """What the head measures on the step before it learns."""
        if not self._learns_from(number, step):
            return self.learner.score(step)
        if self.arm.text == "path" and not self.arm.ahead:
            self._learn(step)  # measures on the way, before the update, as in a run
            return self.learner.learned()
        row = self.learner.score(step)
        self._learn(step if self.arm.text == "path" else still)
        return {**row, metrics.MTP_GRAD_NORM: self.learner.learned()[metrics.MTP_GRAD_NORM]}

    def _learns_from(self, number: int, step: Step) -> bool:
        needs_future = self.arm.ahead or self.arm.weighting == "oracle"
        is_due = self.arm.objective is not None and number % self.arm.every == 0
        return is_due and (step.ahead is not None or not needs_future)

    def _learn(self, step: Step) -> None:
        batch = step.batch()
        counts = self.learner.trainer.row_counts(batch.action_mask, batch.segment_ids)
        weights = row_weights(self.arm.weighting, step, counts)
        self.learner.learn(step, ahead=self.arm.ahead, row_weight=weights)

    def save(self) -> None:
        """Keep the head and its optimizer."""
        torch.save({"at": self.at, "seconds": self.seconds, **self.learner.state()}, self.out / ".state.pt")
        (self.out / ".state.pt").replace(self.out / "state.pt")

    def keep_head(self, number: int, also: Collection[int]) -> None:
        """Keep the head as it is after a step, if it is one to be kept."""
        due = number % KEEP_HEAD_EVERY == 0 or number in also
        if due and self.at == number and self.arm.name in KEPT_HEADS:
            save_head(head_after(self.out, number), self.learner.trainer.head)

    def finish(self) -> None:
        """Write that the path is behind it."""
        self.save()
        self.writer.close()
        (self.out / DONE).write_text(json.dumps({"seconds": round(self.seconds, 1)}) + "\n", encoding="utf-8")


def walk_path(
    arms: Sequence[HeadArm],
    out: Path,
    *,
    states: Path,
    heads: Path,
    still: Path,
    policy: Path,
    rate: float,
    keep: Collection[int] = (),
) -> None:
    """Take the arms along a path, each from where it was cut off.

    Args:
        arms: which; one that is done is left alone.
        out: a folder for each arm goes here.
        states: the path's steps, `step_000001.safetensors` and so on.
        heads: the starting heads, `START/head`.
        still: the pool of the first policy's responses for the control.
        policy: the first policy, for its configuration.
        rate: learning rate of the heads.
        keep: further steps after which heads stay.
    """
    config = trunk_config(policy)
    walkers = [Walker(arm, out / arm.name, heads / arm.start / "head", config, rate) for arm in arms]
    walkers = [walker for walker in walkers if not walker.is_done]
    files = sorted(states.glob("step_*.safetensors"))
    started, begun = time.monotonic(), min((walker.at for walker in walkers), default=len(files))
    for number, file in enumerate(files, start=1):
        if number <= begun:
            continue
        step = load_step(file)
        held = batch_of(still, number - 1, len(step.sequences))
        for walker in walkers:
            walker.step(number, step, held)
            walker.keep_head(number, keep)
        if number % SAVE_EVERY == 0:
            for walker in walkers:
                walker.save()
            pace = (time.monotonic() - started) / (number - begun)
            left = pace * (len(files) - number) / 60
            print(f"{out}: step {number}, about {left:.0f} min left", file=sys.stderr, flush=True)
    for walker in walkers:
        walker.finish()
