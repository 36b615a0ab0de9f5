"""Every measurement in one command: each runs as a command of its own, and one file holds the ratios of all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from openrlhf_mtp.bench.ratios import Ratio
from openrlhf_mtp.bench.report import publish, table
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.runlog.run_folder import writable

RESULT = "bench_all.json"
Named = Iterator[tuple[str, Ratio]]
Run = Callable[[Sequence[str]], int]
"""Runs `openrlhf-mtp` with these words and returns its exit code."""


@dataclass(frozen=True)
class Part:
    """One measurement of the suite.

    Attributes:
        name: of the command below `bench`, and of its file.
        ratios: the named ratios of its record.
        smoke: the options of its short form.
        takes_model: it measures a trained policy, which has to be there.
    """

    name: str
    ratios: Callable[[Mapping[str, Any]], Named]
    smoke: tuple[str, ...] = ("--smoke",)
    takes_model: bool = False

    @property
    def file(self) -> str:
        """The file that its command writes into the folder of the results."""
        return f"bench_{self.name}.json"


@dataclass(frozen=True)
class Outcome:
    """The ratios that a part came to, or why there are none."""

    ratios: Mapping[str, Ratio]
    problem: str = ""


def _single(figure: float) -> Ratio:
    return Ratio(figure, figure, figure)


def loss_ratios(record: Mapping[str, Any]) -> Named:
    """Time and memory of each form of the loss over plain PyTorch's."""
    for form, row in record["forms"].items():
        if form != "plain" and "time_ratio" in row:
            yield f"{form}, time over plain", Ratio(**row["time_ratio"])
            yield f"{form}, memory over plain", _single(row["memory_ratio"])


def step_ratios(record: Mapping[str, Any]) -> Named:
    """Seconds of an optimizer step in each regime over one without a head."""
    for form, row in record["forms"].items():
        if form != "no head":
            yield f"{form}, time over no head", Ratio(*row["over_no_head"])


def sync_ratios(record: Mapping[str, Any]) -> Named:
    """Seconds of OpenRLHF's sync over ours, by transport."""
    for form, row in record["forms"].items():
        if form != "OpenRLHF" and row.get("openrlhf_over_it"):
            yield f"{form}, speed over OpenRLHF's", Ratio(*row["openrlhf_over_it"])


def rollout_ratios(record: Mapping[str, Any]) -> Named:
    """Tokens per second with drafts over without, by batch."""
    for row in record["rows"]:
        ratio = Ratio(row["ratio"], row["ratio_low"], row["ratio_high"])
        yield f"batch {row['batch']}, speed over no drafts", ratio


PARTS = (
    Part("loss", loss_ratios),
    Part("step", step_ratios),
    Part("sync", sync_ratios),
    Part("rollout", rollout_ratios, smoke=("--repeats", "1"), takes_model=True),
)


def run_command(words: Sequence[str]) -> int:
    """Run `openrlhf-mtp` in a process of its own, which shares this one's terminal."""
    return subprocess.run([sys.executable, "-m", "openrlhf_mtp.cli.main", *words], check=False).returncode


def bench_all(
    out: Path, model: str | None, *, smoke: bool, only: Sequence[str] = (), run: Run = run_command
) -> int:
    """Run the measurements one after the other, print their ratios and write `bench_all.json`.

    A part that fails does not stop those after it.

    Args:
        out: folder of every part's result.
        model: the policy that rollouts are measured on; None is the quickstart's.
        smoke: short forms, which show that everything works and whose figures mean nothing.
        only: names of parts; all of them if empty.
        run: runs a command.

    Returns:
        0 if every part has its ratios, else 1.

    Raises:
        JobError: there is no such part.
    """
    known = [part.name for part in PARTS]
    for name in only:
        if name not in known:
            raise JobError(f"--only: got {name!r}, expected one of {', '.join(known)}")
    writable(out)
    outcomes = {}
    for part in PARTS:
        if not only or part.name in only:
            print(f"bench {part.name}", file=sys.stderr, flush=True)
            outcomes[part.name] = _measure(part, out, model, smoke=smoke, run=run)
    publish(out, RESULT, to_json(outcomes, smoke=smoke), [render(outcomes, smoke=smoke)])
    return int(any(outcome.problem for outcome in outcomes.values()))


def _measure(part: Part, out: Path, model: str | None, *, smoke: bool, run: Run) -> Outcome:
    result = out / part.file
    result.unlink(missing_ok=True)  # an earlier command's, which would pass for this one's
    given = [model] if part.takes_model and model is not None else []
    code = run(["bench", part.name, *given, "--out", str(out), *(part.smoke if smoke else ())])
    if code != 0:
        return Outcome({}, f"exit code {code}; its messages are above")
    ratios = dict(part.ratios(json.loads(result.read_text(encoding="utf-8"))))
    return Outcome(ratios, "" if ratios else "no form could be compared; its table says why")


def to_json(outcomes: Mapping[str, Outcome], *, smoke: bool) -> dict[str, Any]:
    """The ratios, in the form of a run's `summary.json`, so that the same comparison reads both."""
    metrics = {
        f"{part}: {name}": {"median": ratio.middle, "min": ratio.low, "max": ratio.high}
        for part, outcome in outcomes.items()
        for name, ratio in outcome.ratios.items()
    }
    problems = {part: outcome.problem for part, outcome in outcomes.items() if outcome.problem}
    return {"smoke": smoke, "metrics": metrics, "problems": problems}


def render(outcomes: Mapping[str, Outcome], *, smoke: bool) -> Table:
    """A row for each ratio, and what failed."""
    rows = [
        (f"{part}: {name}", f"{ratio.middle:.2f}", ratio.interval())
        for part, outcome in outcomes.items()
        for name, ratio in outcome.ratios.items()
    ]
    problems = [f"{part}: {outcome.problem}" for part, outcome in outcomes.items() if outcome.problem]
    says = (
        "Smoke forms: these figures mean nothing." if smoke else "docs/benchmarks.md says how to read them."
    )
    return table(
        "all measurements", "\n".join([*problems, says]), ("form", "ratio", "range"), rows, min_width=79
    )
