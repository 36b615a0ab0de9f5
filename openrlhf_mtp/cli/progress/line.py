"""One line of progress for work in several stages: `[2/4] head 40/120, about 3 min left of 5  loss 0.31`.

A command shows the progress of its own work (`counting`, `progress`). If a whole of several stages is told, it shows
its one line instead: on a terminal it stays at the bottom, in a log a new one appears when something changed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from openrlhf_mtp.cli.progress.estimate import Estimate, Part

LINE_AFTER_S = 5.0
"""A log gets no new line for a step before this."""
LINE_EVERY_S = 30.0
"""A log that stays silent for longer looks like a hang."""

_told: list[Whole] = []


def whole() -> Whole | None:
    """The whole that is told of progress at the moment, None where a command shows its own."""
    return _told[-1] if _told else None


@dataclass(frozen=True)
class StageParts:
    """A stage's name and its parts."""

    name: str
    parts: Sequence[Part]


class Whole:
    """The progress of all the work. Any thread that does a part may call its methods."""

    def __init__(self, stages: Sequence[StageParts], console: Console) -> None:
        self._stages, self._console = stages, console
        self._estimate = Estimate([part for stage in stages for part in stage.parts])
        self._stage, self._in_stage = -1, 0
        self._count, self._detail = "", ""
        self._lock = threading.RLock()
        self._said_s = 0.0

    def begin(self, stage: int) -> None:
        """Stage number `stage`, from 0, is worked on."""
        with self._lock:
            self._stage, self._in_stage = stage, 0
            self._count = self._detail = ""
            self._say()

    def skip(self, stage: int) -> None:
        """Stage number `stage` is done already."""
        with self._lock:
            self._estimate.skip(len(self._stages[stage].parts))
            self.print(f"[{stage + 1}/{len(self._stages)}] {self._stages[stage].name}: done before")

    def end(self, text: str) -> None:
        """The stage is finished; `text` says what was done."""
        with self._lock:
            stage, self._stage = self._stage, -1  # no line to show until the next stage begins
            self._move(len(self._stages[stage].parts))
            self.print(f"[{stage + 1}/{len(self._stages)}] {self._stages[stage].name}: {text}")

    def restart(self) -> None:
        """The stage starts over."""
        with self._lock:
            self._estimate.move(-self._in_stage)
            self.begin(self._stage)

    def enter(self, part: str) -> None:
        """The part of this name begins; what comes before it in its stage is over."""
        with self._lock:
            names = [each.name for each in self._stages[self._stage].parts]
            self._move(names.index(part))
            self._say()

    def leave(self) -> None:
        """The current part is over, the next one of the stage begins."""
        with self._lock:
            self._count = self._detail = ""
            if self._in_stage + 1 < len(self._stages[self._stage].parts):
                self._move(self._in_stage + 1)
                self._say()

    def step(self, done: int, total: int | None, detail: str = "") -> None:
        """Set the progress of the current part, with a detail to show."""
        with self._lock:
            if total:
                self._estimate.count(done, total)
            self._count, self._detail = f" {done}/{total}" if total else f" {done}", detail
            if time.monotonic() - self._said_s >= LINE_AFTER_S or done == total:
                self._say()

    def remark(self, text: str) -> None:
        """Show `text` as the detail of the current part until its next step; an empty text changes nothing."""
        with self._lock:
            if text:
                self._detail = text

    def print(self, text: str) -> None:
        """A line that stays, such as a warning."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """The one line."""
        with self._lock:
            stage = self._stages[self._stage]
            name = stage.parts[self._in_stage].name
            detail = f"  {self._detail}" if self._detail else ""
            return f"[{self._stage + 1}/{len(self._stages)}] {name}{self._count}, {self._estimate}{detail}"

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the line, and be told of progress, until the context ends."""
        _told.append(self)
        try:
            if self._console.is_terminal:
                with Live(
                    self, console=self._console, refresh_per_second=2, transient=True, redirect_stdout=False
                ):
                    yield
            else:
                with self._signs_of_life():
                    yield
        finally:
            _told.remove(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The text on the terminal, never more than one row."""
        text = Text(self.line() if self._stage >= 0 else "", no_wrap=True, end="")
        text.truncate(options.max_width, overflow="ellipsis")
        yield text

    @contextmanager
    def _signs_of_life(self) -> Iterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(1.0):
                with self._lock:
                    if self._stage >= 0 and time.monotonic() - self._said_s >= LINE_EVERY_S:
                        self._say()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _move(self, to: int) -> None:
        if to > self._in_stage:
            self._estimate.move(to - self._in_stage)
            self._in_stage = to
            self._count = self._detail = ""

    def _say(self) -> None:
        self._said_s = time.monotonic()
        if not self._console.is_terminal:
            print(self.line(), file=sys.stderr, flush=True)


@contextmanager
def shown_beside(show: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run `show(ended, *arguments)` in a thread until the context ends, which sets the event `ended` for it."""
    ended = threading.Event()
    thread = threading.Thread(target=show, args=(ended, *arguments), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if (told := whole()) is not None:  # not after an error: nothing follows then
        told.leave()
