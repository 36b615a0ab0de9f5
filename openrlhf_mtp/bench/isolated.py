"""A form in a process of its own, so that its peak memory is its own; the caller tells it when to run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

from openrlhf_mtp.bench.harness import Report, Runs, UnavailableError, take_turns, timed


@dataclass(frozen=True)
class Prepared:
    """A form that is ready to run, in its own process.

    Attributes:
        run: what is timed.
        figures: what it computed in its last run, plain values by name.
        device: cpu or cuda, whose memory is measured.
    """

    run: Callable[[], object]
    figures: Callable[[], dict[str, Any]]
    device: str


Prepare = Callable[..., Prepared]
"""A module's function, called in the process; raises `UnavailableError` if the form cannot run here."""


class IsolatedForm:
    """The caller's side of the process. Use as a context manager."""

    def __init__(self, prepare: Prepare, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, prepare, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.join(5)
        self._process.kill()

    def run(self) -> float:
        """Run once and return the seconds; the first call prepares the form too, outside the clock.

        Raises:
            UnavailableError: it cannot run here, ran out of memory, or its process has ended.
        """
        return float(self._ask("run"))

    def result(self) -> tuple[int, dict[str, Any]]:
        """Peak memory in bytes above the inputs, over all runs, and the figures of the last run.

        Raises:
            UnavailableError: as in `run`.
        """
        extra_bytes, figures = self._ask("result")
        return extra_bytes, figures

    def _ask(self, word: str) -> Any:
        try:
            self._connection.send(word)
            answer, problem = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            raise UnavailableError(
                f"its process ended with exit code {code}; -9 is the kernel's, out of memory"
            ) from None
        if problem:
            raise UnavailableError(problem)
        return answer


def _serve(connection: Connection, prepare: Prepare, arguments: tuple[Any, ...]) -> None:
    """Prepare the form at the first word, then obey `run` and `result` until the pipe closes."""
    import torch

    try:
        word = connection.recv()
        prepared = prepare(*arguments)
        meter = Meter(prepared.device)
        while True:
            answer = timed(prepared.run) if word == "run" else (meter.extra_bytes(), prepared.figures())
            connection.send((answer, ""))
            word = connection.recv()
    except EOFError:
        return
    except UnavailableError as problem:
        connection.send((None, str(problem)))
    except torch.OutOfMemoryError as problem:
        connection.send((None, f"out of memory: {problem}"))


@dataclass(frozen=True)
class Measured:
    """All that came of a form.

    Attributes:
        seconds: of each repeat; empty where it could not run.
        extra_bytes: peak memory above the inputs, over all repeats.
        figures: of its last run, by name.
        problem: why it could not run, else empty.
    """

    seconds: tuple[float, ...] = ()
    extra_bytes: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def take_isolated_turns(
    prepare: Prepare, forms: Mapping[str, Sequence[Any]], repeats: int, report: Report[float]
) -> dict[str, Measured]:
    """Let forms take turns, each in a process of its own.

    Args:
        prepare: see `Prepare`.
        forms: name -> its arguments.
        repeats, report: as in `take_turns`.
    """
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(IsolatedForm(prepare, *given)) for name, given in forms.items()
        }
        runs = take_turns({name: process.run for name, process in processes.items()}, repeats, report)
        return {name: _measured(processes[name], one) for name, one in runs.items()}


def _measured(process: IsolatedForm, runs: Runs[float]) -> Measured:
    if runs.problem:
        return Measured(problem=runs.problem)
    try:
        extra_bytes, figures = process.result()
    except UnavailableError as problem:
        return Measured(problem=str(problem))
    return Measured(runs.counted, extra_bytes, figures)


class Meter:
    """Peak memory above what is there now: the allocator's on a GPU, the process's resident pages on a CPU."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
            self._base = torch.cuda.memory_allocated()
            return
        reset_peak()
        self._base = resident_peak()

    def extra_bytes(self) -> int:
        """Bytes at the peak since the start, above those at the start."""
        if not self._cuda:
            return resident_peak() - self._base
        import torch

        return torch.cuda.max_memory_allocated() - self._base


def reset_peak() -> None:
    """Set the peak of this process to what is resident now."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as references:
        references.write("5")


def resident_peak() -> int:
    """Most bytes that were resident in this process, since its start or since `reset_peak`."""
    with open("/proc/self/status", encoding="ascii") as status:
        (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
