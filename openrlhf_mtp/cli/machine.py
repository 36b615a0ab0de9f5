"""Precision and threads of a run, decided once in the driver and kept in the run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from openrlhf_mtp.bench.harness import take_turns, timed
from openrlhf_mtp.config.job import Job
from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.machine.host import Host, detect_host
from openrlhf_mtp.config.machine.precision import AUTO, SETTING, Precision, Speed
from openrlhf_mtp.config.threads import Threads, share_out, usable_cores
from openrlhf_mtp.runlog.run_folder import read_machine, write_machine

ROWS = (64, 16)
"""Rows of the measured products: a training micro-batch's or a prompt's tokens, and a step of a few sequences."""
WIDTH = 512
REPEATS = 15
"""A product takes some 0.1 to 3 ms; the least of this many is what the machine can do, whatever runs beside it."""


@dataclass(frozen=True)
class Choice:
    """The precision and threads of a run.

    Attributes:
        precision: of trainers and, unless the job says otherwise, engines.
        threads: of the processes; None leaves them as they are.
    """

    precision: Precision
    threads: Threads | None

    @property
    def trainer_threads(self) -> int | None:
        """Threads of each trainer rank."""
        return None if self.threads is None else self.threads.trainer

    @property
    def engine_threads(self) -> int | None:
        """Threads of each worker of an engine."""
        return None if self.threads is None else self.threads.engine


def this_machine(job: Job) -> Host:
    """This host with what a job without CUDA needs to know of it; measured only where the job leaves the choice."""
    host = detect_host()
    if host.has_cuda:
        return host
    host = replace(host, cores=usable_cores())
    return replace(host, speed=measure_speed()) if job.value(SETTING) == AUTO else host


def settle(context: JobContext, out: Path, *, resume: bool) -> Choice:
    """Decide, and record it in the run folder. A resumed run keeps the precision that it began with."""
    precision, began = context.precision, read_machine(out) if resume else {}
    if context.text(SETTING) == AUTO and SETTING in began:
        precision = Precision(began[SETTING], "as when the run began")
    choice = Choice(precision, share_out(context))
    write_machine(out, _record(choice, context.host))
    return choice


def _record(choice: Choice, host: Host) -> dict[str, Any]:
    return {
        SETTING: choice.precision.name,
        "why": choice.precision.why,
        "speed": None if host.speed is None else asdict(host.speed),
        "cores": host.cores,
        "threads": None if choice.threads is None else asdict(choice.threads),
    }


def measure_speed() -> Speed:
    """Time the same products in both precisions, in turn, on one thread."""
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()  # before torch is imported: it keeps the notices out of the output
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        products = {
            _name(dtype, rows): partial(timed, _product(rows, dtype))
            for dtype in (torch.bfloat16, torch.float32)
            for rows in ROWS
        }
        runs = take_turns(products, REPEATS)
    finally:
        torch.set_num_threads(threads)

    def least(dtype: Any) -> float:
        return sum(min(runs[_name(dtype, rows)].counted) for rows in ROWS)

    return Speed(bfloat16_s=least(torch.bfloat16), float32_s=least(torch.float32))


def _name(dtype: Any, rows: int) -> str:
    return f"{rows} rows, {dtype}"


def _product(rows: int, dtype: Any) -> Callable[[], Any]:
    """A linear layer as in training, where oneDNN is given the weight as it lies."""
    import torch

    states, weight = torch.ones(rows, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDTH, dtype=dtype)
    return lambda: torch.nn.functional.linear(states, weight)
