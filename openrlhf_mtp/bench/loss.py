"""Time and memory of the loss, forward and backward: ours, plain PyTorch, and `speculators`; see `bench.loss_table`.

Each form lives in a process of its own, so that its peak memory is its own; the processes take turns, so that a
machine that slows down slows all of them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median

import torch

from openrlhf_mtp.bench.loss_forms import FORMS, UnavailableError, Workload, make_inputs, seconds_now


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


@dataclass(frozen=True)
class Ratio:
    """A form's time over another's: of the medians, and between the extremes of all repeats."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, one: Result, other: Result) -> Ratio:
        return cls(
            median(one.seconds) / median(other.seconds),
            min(one.seconds) / max(other.seconds),
            max(one.seconds) / min(other.seconds),
        )


Report = Callable[[str, float], None]
"""Called with the form and its seconds after each run, so that a long measurement shows where it is."""


def measure(workload: Workload, report: Report) -> list[Result]:
    """Every form in turn, `workload.repeats` times after one run that is not timed."""
    workers = {form: _Worker(form, workload) for form in FORMS}
    try:
        for repeat in range(workload.repeats + 1):
            for form, worker in workers.items():
                seconds = worker.run()
                if repeat and seconds is not None:
                    report(form, seconds)
        return [worker.result() for worker in workers.values()]
    finally:
        for worker in workers.values():
            worker.stop()


class _Worker:
    """A form in its own process; it runs when told to and then says how long it took."""

    def __init__(self, form: str, workload: Workload) -> None:
        context = multiprocessing.get_context("spawn")
        self._form, self._seconds, self._problem = form, list[float](), ""
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, form, workload), daemon=True)
        self._process.start()
        theirs.close()
        self._problem = str(self._answer() or "")

    def run(self) -> float | None:
        """One run's seconds; None when the form cannot run."""
        if self._problem:
            return None
        self._connection.send("run")
        answer = self._answer()
        if not isinstance(answer, float):
            self._problem = str(answer)
            return None
        self._seconds.append(answer)
        return answer

    def result(self) -> Result:
        """All runs but the first, and the peak over all of them."""
        if not self._problem:
            self._connection.send("result")
            answer = self._answer()
            if isinstance(answer, tuple):
                return Result(self._form, tuple(self._seconds[1:]), *answer)
            self._problem = str(answer)
        return Result(self._form, problem=self._problem)

    def stop(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(5)
        self._process.kill()

    def _answer(self) -> object:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            return f"its process ended with exit code {self._process.exitcode}; -9 is the kernel's, out of memory"


def _serve(connection: Connection, form: str, workload: Workload) -> None:
    """A worker's life: say whether the form can run, then obey `run` and `result` until the pipe closes."""
    try:
        inputs, meter = make_inputs(workload), Meter(workload.device)
        FORMS[form](make_inputs(workload.tiny()), workload.tiny()).backward()
    except (UnavailableError, torch.OutOfMemoryError) as problem:
        connection.send(str(problem))
        return
    connection.send(None)
    meter.start()
    loss = torch.zeros(())
    try:
        while True:
            if connection.recv() == "result":
                connection.send((meter.extra_bytes(), loss.item(), inputs.gradient_norm()))
                continue
            for state in inputs.states:
                state.grad = None
            start = seconds_now(workload.device)
            loss = FORMS[form](inputs, workload)
            loss.backward()
            connection.send(seconds_now(workload.device) - start)
            loss = loss.detach()
    except EOFError:
        return
    except torch.OutOfMemoryError as problem:
        connection.send(f"out of memory: {problem}")


class Meter:
    """Peak memory above what was there at `start`: the allocator's on a GPU, the process's resident pages on a CPU."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._base = 0

    def start(self) -> None:
        """Forget the peak so far."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._base = torch.cuda.memory_allocated()
            return
        with open("/proc/self/clear_refs", "w", encoding="ascii") as references:
            references.write("5")  # sets the peak to what is resident now
        self._base = self._resident_peak()

    def extra_bytes(self) -> int:
        """The peak since, above the base."""
        peak = torch.cuda.max_memory_allocated() if self._cuda else self._resident_peak()
        return peak - self._base

    @staticmethod
    def _resident_peak() -> int:
        with open("/proc/self/status", encoding="ascii") as status:
            (line,) = (line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
