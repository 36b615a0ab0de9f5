"""`openrlhf-mtp bench head`: time and memory of the head alone, at a large model's shape, by length.

It needs torch and transformers, and neither a policy nor DeepSpeed nor vLLM, so it is among the first things that run
on a new GPU. `bench step` measures the head's part of a whole training step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from openrlhf_mtp.bench.harness import Report
from openrlhf_mtp.bench.head_forms import GROUPS, WIDTH, Shape, forms_on, prepare
from openrlhf_mtp.bench.isolated import take_isolated_turns
from openrlhf_mtp.bench.report import device_name, publish, show_seconds, table
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.run_folder import writable

RESULT = "bench_head.json"
SMOKE = {"hidden": 512, "vocab": 512}
SMOKE_TOKENS = (64,)
"""Seconds instead of minutes; it shows that everything runs, not how fast."""


@dataclass(frozen=True)
class Result:
    """One form at one length.

    Attributes:
        form: a name in `head_forms.FORMS`.
        tokens: of the sequence.
        seconds: of each repeat; empty where it could not run.
        extra_bytes: peak memory above the inputs and the parameters.
        problem: why it could not run.
    """

    form: str
    tokens: int
    seconds: tuple[float, ...] = ()
    extra_bytes: int = 0
    problem: str = ""


def bench_head(out: Path, shape: Shape, tokens: Sequence[int], repeats: int, *, smoke: bool = False) -> int:
    """Measure, print the table, write `bench_head.json` into `out`, and return 0.

    Raises:
        JobError: a width that does not hold whole groups of attention heads.
    """
    if smoke:
        shape, tokens, repeats = replace(shape, **SMOKE), SMOKE_TOKENS, 2  # type: ignore[arg-type]
    if shape.hidden % (WIDTH * GROUPS):
        raise JobError(
            f"--hidden: got {shape.hidden}, expected a multiple of {WIDTH * GROUPS}: heads are {WIDTH} wide, and "
            f"{GROUPS} share a key-value head"
        )
    writable(out)
    import torch

    note = {**asdict(shape), "repeats": repeats, "torch": torch.__version__}
    note["device"] = device_name(shape.device)
    results = [one for length in tokens for one in measure(shape, length, repeats, show_seconds(3))]
    publish(out, RESULT, {**note, "forms": [asdict(one) for one in results]}, [render(results, note)])
    return 0


def measure(shape: Shape, tokens: int, repeats: int, report: Report[float]) -> list[Result]:
    """Let the forms take turns at one length, each in a process of its own."""
    forms = {form: (form, shape, tokens) for form in forms_on(shape.device)}
    measured = take_isolated_turns(prepare, forms, repeats, report)
    return [Result(form, tokens, one.seconds, one.extra_bytes, one.problem) for form, one in measured.items()]


def render(results: Sequence[Result], note: Mapping[str, Any]) -> Table:
    """A row for each form and length."""
    title = (
        f"head: hidden {note['hidden']:,}, vocabulary {note['vocab']:,}, {note['depths']} depths\n"
        f"{note['dtype']}, {note['device']}, torch {note['torch']}"
    )
    problems = [f"{one.form}, {one.tokens:,}: {one.problem}" for one in results if one.problem]
    caption = (
        "Forward and backward, median of the repeats. Memory: peak above parameters and\n"
        "inputs; its bytes a token are in multiples of the hidden size H."
    )
    columns = ("form", "tokens", "seconds", "tokens/s", "memory MiB", "bytes/token/H")
    rows = [_row(one, note["hidden"]) for one in results]
    return table(title, "\n".join([*problems, caption]), columns, rows, min_width=79)


def _row(one: Result, hidden: int) -> tuple[str, ...]:
    if one.problem:
        return (one.form, f"{one.tokens:,}", *"----")
    seconds = median(one.seconds)
    return (
        one.form,
        f"{one.tokens:,}",
        f"{seconds:.3f}",
        f"{one.tokens / seconds:,.0f}",
        f"{one.extra_bytes / 2**20:,.0f}",
        f"{one.extra_bytes / one.tokens / hidden:.0f}",
    )
