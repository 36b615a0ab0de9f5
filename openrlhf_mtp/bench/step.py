"""`openrlhf-mtp bench step`: what the head costs a training step in each regime, side by side.

The real trainer steps (`bench.step_trainer`). One process holds one policy and all forms.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from openrlhf_mtp.bench import step_trainer
from openrlhf_mtp.bench.harness import PartClock, Report, now, take_turns
from openrlhf_mtp.bench.kept import KeptMemory
from openrlhf_mtp.bench.random_policy import HEAD_WIDTH
from openrlhf_mtp.bench.ratios import Ratio
from openrlhf_mtp.bench.report import default_device, device_name, publish, show_seconds, table
from openrlhf_mtp.bench.step_forms import FIXED, OCC, ONE_PIECE, PLAIN, Workload
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.run_folder import writable
from openrlhf_mtp.upstream.openrlhf.timing import timed_step

RESULT = "bench_step.json"
PARTS = ("forward", "backward", "update", "head")
"""Parts of a step's time: the policy's forward pass, its backward with the joint term's, its update, and the head
with a forward pass, loss, backward and update of its own."""
SMOKE: dict[str, Any] = {
    "layers": 2,
    "hidden": 128,
    "vocab": 512,
    "sequences": 2,
    "prompt": 4,
    "response": 24,
    "repeats": 1,
}
"""Seconds instead of minutes; it shows that everything runs, not how fast."""


@dataclass(frozen=True)
class Step:
    """One optimizer step: its seconds, and those of its parts (`PARTS`); what is left is moving and logging."""

    seconds: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Result:
    """One form's timed steps, in the order of the turns, and what its head's chain keeps for backward: bytes of a token
    and channel, 0 without a gradient."""

    form: str
    steps: tuple[Step, ...]
    kept: float = 0.0

    @property
    def seconds(self) -> tuple[float, ...]:
        """The seconds of each step."""
        return tuple(step.seconds for step in self.steps)

    def part(self, name: str) -> tuple[float, ...]:
        """Seconds of a part of each step."""
        return tuple(step.parts[name] for step in self.steps)

    def over(self, other: Result) -> Ratio:
        """The ratio to another form's time, turn by turn."""
        return Ratio.by_turn(self.seconds, other.seconds)


def bench_step(out: Path, workload: Workload, *, smoke: bool = False) -> int:
    """Measure, print the tables, write `bench_step.json` into `out`, and return 0.

    Raises:
        JobError: a width that is no multiple of an attention head's.
    """
    if smoke:
        workload = replace(workload, **SMOKE)
    if workload.hidden % HEAD_WIDTH:
        raise JobError(
            f"--hidden: got {workload.hidden}, expected a multiple of {HEAD_WIDTH}, the width of a head"
        )
    known = replace(workload, chosen=()).forms().keys() | {ONE_PIECE}
    if unknown := [name for name in workload.chosen if name not in known]:
        raise JobError(f"--form: got {', '.join(unknown)}, expected some of: {'; '.join(sorted(known))}")
    writable(out)
    results = measure(workload, show_seconds(2))
    import torch

    note = {**asdict(workload), "device": device_name(default_device()), "torch": torch.__version__}
    publish(
        out,
        RESULT,
        to_json(results, note),
        [render(results, note), render_parts(results), render_kept(results)],
    )
    return 0


def measure(workload: Workload, report: Report[float]) -> list[Result]:
    """Build the policy, and let the forms take turns there and back."""
    with tempfile.TemporaryDirectory(prefix="bench_step_") as scratch:
        folder = step_trainer.write_policy(Path(scratch) / "policy", workload)
        actor = step_trainer.build_actor(folder, Path(scratch), workload)
        heads = {name: step_trainer.head_parts(actor, mtp) for name, mtp in workload.forms().items()}
        experiences = list(step_trainer.experiences(actor, workload))
        clock = PartClock(PARTS)
        if ONE_PIECE in heads:
            heads[ONE_PIECE][1].head.part = workload.sequences * (workload.prompt + workload.response)
        for _, _, head_steps in heads.values():
            _watch(head_steps, clock)
        with timed_step(actor.trainer, clock.timing):
            runs = take_turns(
                {
                    name: partial(_step, actor.trainer, head, experiences, clock)
                    for name, head in heads.items()
                },
                workload.repeats,
                lambda form, step: report(form, step.seconds),
                report_warm_up=True,
                there_and_back=True,
            )
        batch = step_trainer.observed_batch(actor, experiences[: workload.sequences])
        return [
            Result(name, of_form.counted, _kept(heads[name][1], batch) / workload.hidden)
            for name, of_form in runs.items()
        ]


def _kept(head_trainer: Any, batch: Any) -> float:
    """Bytes that the head's chain keeps for backward, by token of a micro-batch."""
    if head_trainer is None or head_trainer.engine is None:
        return 0.0
    head, stack = head_trainer.head, ExitStack()
    memory = KeptMemory(head.parameters())

    def enter(*_: object) -> None:
        stack.enter_context(memory.counting())

    def leave(*_: object) -> None:
        stack.close()

    hooks = (head.register_forward_pre_hook(enter), head.register_forward_hook(leave))
    output = head_trainer.loss(batch)  # its graph keeps what was counted alive
    found = float(memory.bytes / batch.sequences.numel())
    del output
    for hook in hooks:
        hook.remove()
    return found


def _watch(head_steps: Any, clock: PartClock) -> None:
    """Time the head's part of a step; None in the form without a head."""
    if head_steps is None:
        return
    timed, head_trainer, joint = clock.timing("head"), head_steps.head_trainer, head_steps.joint
    head_steps.begin, head_steps.end = timed(head_steps.begin), timed(head_steps.end)
    head_trainer.accumulate = timed(head_trainer.accumulate)
    if joint is not None:
        joint.term = timed(joint.term)


def _step(trainer: Any, head: tuple[Any, Any, Any], experiences: list[Any], clock: PartClock) -> Step:
    """One optimizer step in a form."""
    trainer.mtp, trainer.head_trainer, trainer.head_steps = head
    for experience in experiences:
        trainer.replay_buffer.append(experience)
    start = now()
    trainer.ppo_train(0.0)
    seconds = now() - start
    trainer.replay_buffer.clear()
    return Step(seconds, clock.drain())


def _by_form(results: list[Result]) -> dict[str, Result]:
    return {result.form: result for result in results}


def to_json(results: list[Result], note: Mapping[str, Any]) -> dict[str, Any]:
    """Every step of every form, and the ratios as [middle, low, high]."""
    forms = _by_form(results)
    rows = {
        name: {
            "seconds": result.seconds,
            "parts": {part: result.part(part) for part in PARTS},
            "over_no_head": astuple(result.over(forms[PLAIN])),
            "kept": result.kept,
        }
        for name, result in forms.items()
    }
    record = {**note, "forms": rows}
    return record | {"occ_over_fixed": astuple(occ)} if (occ := _occ_over_fixed(forms)) else record


def _occ_over_fixed(forms: Mapping[str, Result]) -> Ratio | None:
    return forms[OCC].over(forms[FIXED]) if {OCC, FIXED} <= forms.keys() else None


def render(results: list[Result], note: Mapping[str, Any]) -> Table:
    """The forms beside the trainer without a head."""
    forms = _by_form(results)
    title = (
        f"{note['layers']} layers, hidden {note['hidden']:,}, vocabulary {note['vocab']:,}, {note['depths']} depths, "
        f"{note['micro_batches']} x {note['sequences']} sequences of {note['prompt']} + {note['response']} tokens\n"
        f"anchors: {note['fraction']:g} where not said otherwise; {note['device']}, torch {note['torch']}"
    )
    caption = "An optimizer step, policy's update included: median of the repeats; ratios are paired by turn."
    if occ := _occ_over_fixed(forms):
        caption += f"\nocc over fixed: {occ.middle:.3f} ({occ.interval(3)})"
    rows = []
    for name, result in forms.items():
        ratio = result.over(forms[PLAIN])
        rows.append((name, f"{median(result.seconds):.2f}", f"{ratio.middle:.3f}", ratio.interval(3)))
    return table(title, caption, ("form", "seconds", "over no head", "range"), rows)


def render_parts(results: list[Result]) -> Table:
    """The table of the time of each part of a step."""
    caption = (
        "Median seconds. Forward, backward, update: the policy's, a joint term's backward included.\n"
        "Head: its forward and loss, backward and update of its own. The pass ahead of OCC is in forward."
    )
    rows = [(result.form, *(f"{median(result.part(part)):.2f}" for part in PARTS)) for result in results]
    return table("where the time goes", caption, ("form", *PARTS), rows)


def render_kept(results: list[Result]) -> Table:
    """The table of the memory that a chain keeps for backward."""
    caption = (
        "Bytes that autograd keeps of the head's own chain, for each token of a micro-batch and each channel of the\n"
        "hidden size. The loss keeps 2 bytes a depth beside it, in 16 bits."
    )
    rows = [(result.form, f"{result.kept:.1f}") for result in results if result.kept]
    return table("what the chain keeps for backward", caption, ("form", "bytes"), rows)
