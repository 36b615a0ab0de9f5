"""`openrlhf-mtp bench loss`: time and memory of the loss, ours beside plain PyTorch and `speculators`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.table import Table

from openrlhf_mtp.bench.harness import Report
from openrlhf_mtp.bench.isolated import Prepared, take_isolated_turns
from openrlhf_mtp.bench.kernels import VOCABULARIES, KernelSpeed, measure_kernels, render_kernels
from openrlhf_mtp.bench.loss_forms import COMPARABLE, FORMS, Workload, make_inputs
from openrlhf_mtp.bench.ratios import Ratio
from openrlhf_mtp.bench.report import device_name, publish, show_seconds, table
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.run_folder import writable

RESULT = "bench_loss.json"
DTYPES = ("float64", "float32", "bfloat16", "float16")
SMOKE = {"vocab": 8192, "hidden": 256, "tokens": 64, "repeats": 2}
"""Seconds instead of minutes; it shows that everything runs, not how fast."""


@dataclass(frozen=True)
class Result:
    """One form's measurement.

    Attributes:
        form: a name in `FORMS`.
        seconds: forward and backward, each repeat; empty when the form could not run.
        extra_bytes: peak memory above the inputs, over all repeats.
        loss: the mean loss it computed.
        gradient_norm: the norm of its gradient with respect to the head's states.
        problem: why it could not run.
    """

    form: str
    seconds: tuple[float, ...] = ()
    extra_bytes: int = 0
    loss: float = float("nan")
    gradient_norm: float = float("nan")
    problem: str = ""


def bench_loss(out: Path, workload: Workload, *, smoke: bool = False) -> int:
    """Measure, print the tables, write `bench_loss.json` into `out`, and return 0.

    Raises:
        JobError: an objective that the plain form does not have, or a type that torch does not have.
    """
    if workload.objective not in COMPARABLE:
        raise JobError(
            f"--objective: got {workload.objective!r}, expected one that can be compared: {', '.join(COMPARABLE)}"
        )
    if workload.dtype not in DTYPES:
        raise JobError(f"--dtype: got {workload.dtype!r}, expected one of {', '.join(DTYPES)}")
    writable(out)
    if smoke:
        workload = replace(workload, **SMOKE)  # type: ignore[arg-type]
    note = {**asdict(workload), "device": device_name(workload.device), "torch": torch.__version__}
    # OpenRLHF requires the pynvml package, at whose sight torch prints this in every process
    os.environ.setdefault("PYTHONWARNINGS", "ignore:The pynvml package is deprecated:FutureWarning")
    results = measure(workload, show_seconds(3))
    vocabularies = VOCABULARIES if workload.device == "cuda" else ()
    kernels = [
        measure_kernels(vocab, workload.dtype, workload.device, workload.repeats) for vocab in vocabularies
    ]
    tables = [render(results, note), *([render_kernels(kernels, note)] if kernels else [])]
    publish(out, RESULT, to_json(results, kernels, note), tables)
    return 0


def measure(workload: Workload, report: Report[float]) -> list[Result]:
    """Let the forms take turns, each in a process of its own."""
    measured = take_isolated_turns(
        prepare, {form: (form, workload) for form in FORMS}, workload.repeats, report
    )
    return [
        Result(form, one.seconds, one.extra_bytes, problem=one.problem, **one.figures)
        for form, one in measured.items()
    ]


def prepare(form: str, workload: Workload) -> Prepared:
    """Make the inputs, and run the form once on tiny ones: it loads libraries and compiles kernels.

    Raises:
        UnavailableError: the form cannot run here.
    """
    inputs = make_inputs(workload)
    FORMS[form](make_inputs(workload.tiny()), workload.tiny()).backward()
    loss = torch.zeros(())

    def run() -> None:
        nonlocal loss
        for state in inputs.states:
            state.grad = None
        computed = FORMS[form](inputs, workload)
        computed.backward()
        loss = computed.detach()

    def figures() -> dict[str, Any]:
        return {"loss": loss.item(), "gradient_norm": inputs.gradient_norm()}

    return Prepared(run, figures, workload.device)


def _against_plain(result: Result, results: list[Result]) -> tuple[Ratio, float] | None:
    """Time and memory over plain's; None where one of the two could not run."""
    (plain,) = (one for one in results if one.form == "plain")
    if result.problem or plain.problem:
        return None
    return Ratio.of_medians(result.seconds, plain.seconds), result.extra_bytes / plain.extra_bytes


def to_json(results: list[Result], kernels: list[KernelSpeed], note: Mapping[str, Any]) -> dict[str, Any]:
    """Every repeat of every form, and the ratios."""
    forms = {}
    for result in results:
        row: dict[str, Any] = asdict(result)
        ratios = _against_plain(result, results)
        if ratios is not None:
            row |= {"time_ratio": asdict(ratios[0]), "memory_ratio": ratios[1]}
        forms[row.pop("form")] = {"problem": row["problem"]} if result.problem else row
    return {**note, "forms": forms, "kernels": [{**asdict(one), "share": one.share} for one in kernels]}


def render(results: list[Result], note: Mapping[str, Any]) -> Table:
    """The table on the terminal, and why a form did not run."""
    title = (
        f"{note['objective']}: vocabulary {note['vocab']:,}, hidden {note['hidden']:,}, {note['tokens']:,} tokens, "
        f"{note['depths']} depths\n{note['dtype']}, {note['device']}, torch {note['torch']}"
    )
    caption = (
        "Seconds: forward and backward, median of the repeats; ratio: to plain, of the\n"
        "medians and between the extremes. Memory: peak above the inputs; ratio: to plain."
    )
    problems = [f"{one.form}: {one.problem}" for one in results if one.problem]
    columns = ("form", "seconds", "ratio", "range", "memory MiB", "ratio")
    rows = [_row(result, results) for result in results]
    return table(title, "\n".join([*problems, caption]), columns, rows, min_width=79)


def _row(result: Result, results: list[Result]) -> tuple[str, ...]:
    if result.problem:
        return (result.form, *"-----")
    ratios = _against_plain(result, results)
    time = ("-", "-") if ratios is None else (f"{ratios[0].middle:.2f}", ratios[0].interval())
    memory = "-" if ratios is None else f"{ratios[1]:.1%}"
    seconds = f"{median(result.seconds):.3f}"
    return (result.form, seconds, *time, f"{result.extra_bytes / 2**20:,.0f}", memory)
