"""The procedure of a measurement: forms take turns after a warm-up, and the clock waits for the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Report = Callable[[str, T], None]
"""Called with a form's name and what its run returned, so that a long measurement shows where it is."""


class UnavailableError(Exception):
    """A form cannot run here; the message says why."""


@dataclass(frozen=True)
class Runs(Generic[T]):
    """All runs of one form.

    Attributes:
        counted: what each run after the warm-up returned, in order; empty where the form could not run.
        problem: why it could not run, else empty.
    """

    counted: tuple[T, ...] = ()
    problem: str = ""


def take_turns(
    forms: Mapping[str, Callable[[], T]],
    repeats: int,
    report: Report[T] | None = None,
    *,
    report_warm_up: bool = False,
    there_and_back: bool = False,
    warm: bool = False,
) -> dict[str, Runs[T]]:
    """Run each form once per turn, so that a machine that slows down slows all of them.

    Args:
        forms: name -> one run. A run that raises `UnavailableError` is the form's last.
        repeats: turns that count; one more before them warms up kernels and caches.
        report: see `Report`; called for the runs that count.
        report_warm_up: report the first turn too, where a turn takes minutes.
        there_and_back: reverse the order every other turn, so that no form always inherits the machine from the same
            other form.
        warm: the forms are warm already, so that every turn counts.
    """
    counted: dict[str, list[T]] = {name: [] for name in forms}
    problems: dict[str, str] = {}
    for turn in range(int(warm), repeats + 1):
        for name in _order(list(forms), turn, there_and_back):
            if name in problems:
                continue
            try:
                taken = forms[name]()
            except UnavailableError as problem:
                problems[name] = str(problem)
                continue
            if turn > 0:
                counted[name].append(taken)
            if report is not None and (turn > 0 or report_warm_up):
                report(name, taken)
    return {
        name: Runs(problem=problems[name]) if name in problems else Runs(tuple(runs))
        for name, runs in counted.items()
    }


def _order(names: list[str], turn: int, there_and_back: bool) -> list[str]:
    return names[::-1] if there_and_back and turn % 2 == 0 else names


def now() -> float:
    """Read the clock in seconds, once the GPU of this process has finished what it was given."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call, the device's work included."""
    start = now()
    run()
    return now() - start


class PartClock:
    """Split the seconds of a run by part; a call within another one's counts for its own part alone."""

    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = tuple(parts)
        self._seconds = dict.fromkeys(self._parts, 0.0)
        self._inner = [0.0]

    def timing(self, part: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A decorator whose functions are timed as this part."""

        def decorate(untimed: Callable[..., Any]) -> Callable[..., Any]:
            def watched(*args: Any, **kwargs: Any) -> Any:
                self._inner.append(0.0)
                start = now()
                try:
                    return untimed(*args, **kwargs)
                finally:
                    took = now() - start
                    self._seconds[part] += took - self._inner.pop()
                    self._inner[-1] += took

            return watched

        return decorate

    def drain(self) -> dict[str, float]:
        """Seconds by part since the last call."""
        seconds, self._seconds = self._seconds, dict.fromkeys(self._parts, 0.0)
        return seconds
