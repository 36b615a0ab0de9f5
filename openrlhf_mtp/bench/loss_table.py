"""`openrlhf-mtp bench loss`: time and memory of the loss beside plain PyTorch and `speculators`."""

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

from openrlhf_mtp.bench.kernels import VOCABULARIES, KernelSpeed, measure_kernels
from openrlhf_mtp.bench.loss import Ratio, Result, measure
from openrlhf_mtp.bench.loss_forms import COMPARABLE, Workload
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.run_folder import writable

RESULT = "bench_loss.json"
DTYPES = ("float64", "float32", "bfloat16", "float16")
SMOKE = {"vocab": 8192, "hidden": 256, "tokens": 64, "repeats": 2}
"""Seconds instead of minutes; it shows that everything runs, not how fast."""


def bench_loss(out: Path, workload: Workload, *, smoke: bool = False) -> int:
    """Measure, print the tables, write `bench_loss.json` into `out`, and return 0.

    Raises:
        JobError: an objective that the plain form does not have, or a type that torch does not have.
    """
    import torch

    if workload.objective not in COMPARABLE:
        raise JobError(
            f"--objective: got {workload.objective!r}, expected one that can be compared: {', '.join(COMPARABLE)}"
        )
    if workload.dtype not in DTYPES:
        raise JobError(f"--dtype: got {workload.dtype!r}, expected one of {', '.join(DTYPES)}")
    writable(out)
    if smoke:
        workload = replace(workload, **SMOKE)  # type: ignore[arg-type]
    on_cpu = workload.device == "cpu"
    note = {
        **asdict(workload),
        "device": f"CPU, {torch.get_num_threads()} threads" if on_cpu else torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    # OpenRLHF requires the pynvml package, at whose sight torch prints this in every process
    os.environ.setdefault("PYTHONWARNINGS", "ignore:The pynvml package is deprecated:FutureWarning")
    results = measure(workload, show_run)
    kernels = [] if on_cpu else measure_all_kernels(workload)
    record = to_json(results, kernels, note)
    (out / RESULT).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console = Console()
    console.print(render(results, note))
    if kernels:
        console.print(render_kernels(kernels, note))
    print(f"result: {out / RESULT}")
    return 0


def default_device() -> str:
    """cuda where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def measure_all_kernels(workload: Workload) -> list[KernelSpeed]:
    """The row kernels alone, at each vocabulary."""
    return [
        measure_kernels(vocab, workload.dtype, workload.device, workload.repeats) for vocab in VOCABULARIES
    ]


def show_run(form: str, seconds: float) -> None:
    """A line for each run, plain text so that it reads the same without a terminal."""
    print(f"{form}: {seconds:.3f} s", file=sys.stderr, flush=True)


def _against_plain(result: Result, results: list[Result]) -> tuple[Ratio, float] | None:
    """Time and memory over plain's; None where one of the two could not run."""
    (plain,) = (one for one in results if one.form == "plain")
    if result.problem or plain.problem:
        return None
    return Ratio.of(result, plain), result.extra_bytes / plain.extra_bytes


def to_json(results: list[Result], kernels: list[KernelSpeed], note: dict[str, Any]) -> dict[str, Any]:
    """Every repeat of every form, and the ratios."""
    forms = {}
    for result in results:
        row: dict[str, Any] = asdict(result)
        ratios = _against_plain(result, results)
        if ratios is not None:
            row |= {"time_ratio": asdict(ratios[0]), "memory_ratio": ratios[1]}
        forms[row.pop("form")] = {"problem": row["problem"]} if result.problem else row
    return {**note, "forms": forms, "kernels": [{**asdict(one), "share": one.share} for one in kernels]}


def render(results: list[Result], note: dict[str, Any]) -> Table:
    """The table on the terminal, 80 columns wide."""
    title = (
        f"{note['objective']}: vocabulary {note['vocab']:,}, hidden {note['hidden']:,}, {note['tokens']:,} tokens, "
        f"{note['depths']} depths\n{note['dtype']}, {note['device']}, torch {note['torch']}"
    )
    caption = (
        "Seconds: forward and backward, median of the repeats; ratio: to plain, of the\n"
        "medians and between the extremes. Memory: peak above the inputs; ratio: to plain."
    )
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", min_width=79)
    for column in ("form", "seconds", "ratio", "range", "memory MiB", "ratio"):
        table.add_column(column, justify="left" if column == "form" else "right", no_wrap=True)
    problems = []
    for result in results:
        if result.problem:
            table.add_row(result.form, "-", "-", "-", "-", "-")
            problems.append(f"{result.form}: {result.problem}")
            continue
        ratios = _against_plain(result, results)
        time = ("-", "-") if ratios is None else (f"{ratios[0].middle:.2f}", _range(ratios[0]))
        memory = "-" if ratios is None else f"{ratios[1]:.1%}"
        seconds = f"{median(result.seconds):.3f}"
        table.add_row(result.form, seconds, *time, f"{result.extra_bytes / 2**20:,.0f}", memory)
    if problems:
        table.caption = "\n".join([*problems, caption])
    return table


def _range(ratio: Ratio) -> str:
    return f"{ratio.low:.2f}-{ratio.high:.2f}"


def render_kernels(kernels: list[KernelSpeed], note: dict[str, Any]) -> Table:
    """The row kernels beside a copy, 80 columns wide."""
    caption = (
        "Share: least traffic of the three passes per second, over that of a copy. Speculators: its seconds."
    )
    table = Table(
        title=f"Row kernels, forward and backward: {note['device']}, {note['dtype']}",
        caption=caption,
        title_justify="left",
        caption_justify="left",
    )
    for column in ("vocabulary", "rows", "ms", "GB/s", "copy GB/s", "share", "speculators ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in kernels:
        theirs = "-" if one.speculators_seconds is None else f"{one.speculators_seconds * 1e3:.2f}"
        table.add_row(
            f"{one.vocab:,}",
            f"{one.rows:,}",
            f"{one.seconds * 1e3:.2f}",
            f"{one.bytes_per_s / 1e9:,.0f}",
            f"{one.copy_bytes_per_s / 1e9:,.0f}",
            f"{one.share:.0%}",
            theirs,
        )
    return table
