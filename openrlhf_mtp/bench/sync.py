"""`openrlhf-mtp bench sync`: rounds of our weight sync beside OpenRLHF's own, which makes a call a parameter.

One policy, the same engines, in turn: OpenRLHF's sync, and ours by each transport of this machine, with and without
verification. Every run sends other weights than the one before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from openrlhf_mtp.bench import sync_setup
from openrlhf_mtp.bench.harness import Report, Runs, take_turns, timed
from openrlhf_mtp.bench.ratios import Ratio
from openrlhf_mtp.bench.report import default_device, device_name, publish, show_seconds, table
from openrlhf_mtp.bench.sync_setup import Counter, Workload
from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.runlog.run_folder import writable

RESULT = "bench_sync.json"
PARTS = ("pack", "broadcast", "engine", "verify")
"""Parts of a round: packing, sending, waiting for the engines after the last bucket, and verification, which is part of
the wait on the engines' side."""
OPENRLHF = "OpenRLHF"
VERIFIED = ", verified"
SMOKE = {"layers": 2, "hidden": 128, "vocab": 512, "repeats": 1}
"""Seconds instead of minutes; it shows that everything runs, not how fast."""


@dataclass(frozen=True)
class Turn:
    """Two rounds of a form.

    Attributes:
        first: seconds of the first round after connecting; a verified one reads every column back.
        later: seconds of the second; a verified one reads a sample back.
        calls: remote calls to all engines in the second.
        processor: seconds that the processors worked in the second, in this process and all that it started; steadier
            than wall time on a busy machine.
        parts: seconds of the second by part, as `sync.report` has them; empty for OpenRLHF's.
    """

    first: float
    later: float
    calls: int
    processor: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)


def bench_sync(out: Path, workload: Workload, *, smoke: bool = False) -> int:
    """Measure in the Ray session that is open, print the table, write `bench_sync.json` into `out`, and return 0."""
    if smoke:
        workload = replace(workload, **SMOKE)
    writable(out)
    turns, nbytes = measure(workload, show_seconds(3))
    note = {**asdict(workload), "tensors": workload.tensors, "bytes": nbytes}
    note["device"] = device_name(default_device())
    publish(out, RESULT, to_json(turns, note), [render(turns, note), render_parts(turns)])
    return 0


def measure(workload: Workload, report: Report[float]) -> tuple[dict[str, Runs[Turn]], int]:
    """Start the engines and let the forms take turns there and back; also the bytes of a round."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)  # as the engines: on a CPU both sides work at the same time
    counter = Counter()
    with tempfile.TemporaryDirectory(prefix="bench_sync_") as scratch:
        folder = Path(scratch) / "policy"
        sync_setup.write_policy(folder, workload)
        engines = sync_setup.start_engines(folder, workload.engines, counter)
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        policy = loaded.to(default_device())
        theirs = sync_setup.openrlhfs_round(policy, engines)
        forms: dict[str, Callable[[], Turn]] = {OPENRLHF: partial(_turn, policy, theirs, counter)}
        for name, settings in our_forms().items():
            forms[name] = partial(_our_turn, policy, engines, settings, counter)
        turns = take_turns(
            forms, workload.repeats, lambda form, turn: report(form, turn.later), there_and_back=True
        )
    return turns, sum(p.numel() * p.element_size() for p in policy.parameters())


def our_forms() -> dict[str, SyncSettings]:
    """Our sync by transport, with and without verification; engines share the trainer's devices here."""
    return {
        f"{backend}{VERIFIED if every else ''}": SyncSettings.model_validate(
            {"backend": backend, "verify_every": every}
        )
        for backend in ("gloo", "ipc")
        for every in (0, 1)
    }


def _our_turn(policy: Any, engines: list[Any], settings: SyncSettings, counter: Counter) -> Turn:
    """Connecting is not timed."""
    sync = sync_setup.our_sync(policy, engines, settings)
    try:
        return _turn(policy, sync.round, counter)
    finally:
        sync.close()


def _turn(policy: Any, run: Callable[[], object], counter: Counter) -> Turn:
    sync_setup.change(policy)
    first = timed(run)
    sync_setup.change(policy)
    counter.drain()
    reports: list[Any] = []
    worked = processor_seconds()
    later = timed(lambda: reports.append(run()))
    worked = processor_seconds() - worked
    parts = {part: getattr(reports[0], f"{part}_s") for part in PARTS} if reports[0] is not None else {}
    return Turn(first, later, counter.drain(), worked, parts)


def later(turns: Runs[Turn]) -> list[float]:
    """Seconds of the rounds that a run consists of."""
    return [turn.later for turn in turns.counted]


def processor(turns: Runs[Turn]) -> list[float]:
    """Seconds of the processors in those rounds."""
    return [turn.processor for turn in turns.counted]


def processor_seconds() -> float:
    """Seconds that processors have worked for this process and all that it started."""
    import psutil

    this = psutil.Process()
    total = 0.0
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended meanwhile
            times = process.cpu_times()
            total += times.user + times.system
    return total


def verification(
    turns: Mapping[str, Runs[Turn]], seconds: Callable[[Runs[Turn]], list[float]] = later
) -> dict[str, Ratio]:
    """By transport: a verified round over one that is not, turn by turn, in wall time or `processor` time."""
    return {
        form.removesuffix(VERIFIED): Ratio.by_turn(seconds(runs), seconds(turns[form.removesuffix(VERIFIED)]))
        for form, runs in turns.items()
        if form.endswith(VERIFIED)
    }


def to_json(turns: Mapping[str, Runs[Turn]], note: Mapping[str, Any]) -> dict[str, Any]:
    """Every turn of every form, and the ratios as [middle, low, high]."""
    forms = {
        form: {
            "first": [turn.first for turn in runs.counted],
            "later": later(runs),
            "calls": [turn.calls for turn in runs.counted],
            "processor": processor(runs),
            "parts": [dict(turn.parts) for turn in runs.counted],
            "openrlhf_over_it": astuple(Ratio.by_turn(later(turns[OPENRLHF]), later(runs))),
        }
        for form, runs in turns.items()
    }
    shares = {transport: astuple(ratio) for transport, ratio in verification(turns).items()}
    worked = {name: astuple(ratio) for name, ratio in verification(turns, processor).items()}
    return {**note, "forms": forms, "verified_over_plain": shares, "verified_over_plain_processor": worked}


def render(turns: Mapping[str, Runs[Turn]], note: Mapping[str, Any]) -> Table:
    """The forms beside OpenRLHF's sync."""
    title = (
        f"{note['tensors']} tensors, {note['bytes'] / 1e6:,.0f} MB, {note['engines']} engine(s)\n"
        f"{note['device']}"
    )
    caption = (
        "A round: median of the repeats; ratios are paired by turn.\n"
        "The first round after connecting reads everything back if it is verified.\n"
        "Processors: seconds that they worked, in all processes.\n"
        f"verified over plain: {_shares(verification(turns))}\n"
        f"the same of the processors: {_shares(verification(turns, processor))}"
    )
    rows = []
    for form, runs in turns.items():
        ratio = Ratio.by_turn(later(turns[OPENRLHF]), later(runs))
        rows.append(
            (
                form,
                str(runs.counted[0].calls),
                f"{median(turn.first for turn in runs.counted):.3f}",
                f"{median(later(runs)):.3f}",
                f"{median(processor(runs)):.2f}",
                f"{ratio.middle:.2f}",
                ratio.interval(),
            )
        )
    columns = ("form", "calls", "first, s", "later, s", "processors, s", "OpenRLHF over it", "range")
    return table(title, caption, columns, rows, wrap=("OpenRLHF over it", "processors, s"))


def render_parts(turns: Mapping[str, Runs[Turn]]) -> Table:
    """The table of the time of each part of our rounds."""
    caption = "Median seconds of later rounds. Verify: digests of the trainer and of the slowest engine."
    rows = [
        (form, *(f"{median(turn.parts[part] for turn in runs.counted):.3f}" for part in PARTS))
        for form, runs in turns.items()
        if runs.counted[0].parts
    ]
    return table("where the time goes", caption, ("form", *PARTS), rows)


def _shares(ratios: Mapping[str, Ratio]) -> str:
    return "; ".join(f"{name} {ratio.middle:.2f} ({ratio.interval()})" for name, ratio in ratios.items())
