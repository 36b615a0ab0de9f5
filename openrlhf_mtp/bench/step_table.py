"""`openrlhf-mtp bench step`: what the head costs a training step in each regime, as a table and JSON."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from openrlhf_mtp.bench.step import FIXED, OCC, PARTS, PLAIN, Result, Workload, measure
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.run_folder import writable

RESULT = "bench_step.json"
HEAD_WIDTH = 64
"""Of the trunk that is measured: its hidden width is so many of these."""
SMOKE = {"layers": 2, "hidden": 128, "vocab": 512, "sequences": 2, "prompt": 4, "response": 24, "repeats": 1}
"""Seconds instead of minutes; it shows that everything runs, not how fast."""


def bench_step(out: Path, workload: Workload, *, smoke: bool = False) -> int:
    """Measure, print the table, write `bench_step.json` into `out`, and return 0.

    Raises:
        JobError: a width that is no multiple of an attention head's.
    """
    if smoke:
        workload = replace(workload, **SMOKE)
    if workload.hidden % HEAD_WIDTH:
        raise JobError(
            f"--hidden: got {workload.hidden}, expected a multiple of {HEAD_WIDTH}, the width of a head"
        )
    writable(out)
    results = measure(workload, show_step)
    import torch

    on_gpu = torch.cuda.is_available()
    note = {
        **asdict(workload),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    (out / RESULT).write_text(json.dumps(to_json(results, note), indent=2) + "\n", encoding="utf-8")
    console = Console()
    console.print(render(results, note))
    console.print(render_parts(results))
    print(f"result: {out / RESULT}")
    return 0


def show_step(form: str, seconds: float) -> None:
    """A line for each step, plain text so that it reads the same without a terminal."""
    print(f"{form}: {seconds:.2f} s", file=sys.stderr, flush=True)


def by_form(results: list[Result]) -> dict[str, Result]:
    """The results by the name of their form."""
    return {result.form: result for result in results}


def to_json(results: list[Result], note: dict[str, Any]) -> dict[str, Any]:
    """Every step of every form, and the ratios."""
    forms, plain = by_form(results), by_form(results)[PLAIN]
    rows = {
        name: {
            "seconds": result.seconds,
            "parts": result.parts,
            "over_no_head": result.over(plain),
        }
        for name, result in forms.items()
    }
    return {**note, "forms": rows, "occ_over_fixed": forms[OCC].over(forms[FIXED])}


def render(results: list[Result], note: dict[str, Any]) -> Table:
    """The table on the terminal, 80 columns wide."""
    forms = by_form(results)
    title = (
        f"{note['layers']} layers, hidden {note['hidden']:,}, vocabulary {note['vocab']:,}, {note['depths']} depths, "
        f"{note['micro_batches']} x {note['sequences']} sequences of {note['prompt']} + {note['response']} tokens\n"
        f"anchors: {note['fraction']:g} where not said otherwise; {note['device']}, torch {note['torch']}"
    )
    occ = forms[OCC].over(forms[FIXED])
    caption = (
        "An optimizer step, policy's update included: median of the repeats; ratios are paired by turn.\n"
        f"occ over fixed: {occ[0]:.3f} ({occ[1]:.3f}-{occ[2]:.3f})"
    )
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for column in ("form", "seconds", "over no head", "range"):
        table.add_column(column, justify="left" if column == "form" else "right", no_wrap=True)
    for name, result in forms.items():
        middle, low, high = result.over(forms[PLAIN])
        table.add_row(name, f"{median(result.seconds):.2f}", f"{middle:.3f}", f"{low:.3f}-{high:.3f}")
    return table


def render_parts(results: list[Result]) -> Table:
    """Where the time goes."""
    caption = (
        "Median seconds. Forward, backward, update: the policy's, a joint term's backward included.\n"
        "Head: its forward and loss, backward and update of its own. The pass ahead of OCC is in forward."
    )
    table = Table(title="where the time goes", caption=caption, title_justify="left", caption_justify="left")
    for column in ("form", *PARTS):
        table.add_column(column, justify="left" if column == "form" else "right", no_wrap=True)
    for result in results:
        table.add_row(result.form, *(f"{median(result.parts[part]):.2f}" for part in PARTS))
    return table
