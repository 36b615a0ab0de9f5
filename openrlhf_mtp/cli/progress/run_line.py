"""A line of progress for a run that happens in other processes: it follows the rows of `metrics.jsonl`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from openrlhf_mtp.cli.progress.line import LINE_EVERY_S, shown_beside, whole
from openrlhf_mtp.config.run_files import METRICS
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.activity import forget_activities, read_activities
from openrlhf_mtp.runlog.agreement import WINDOW, disagree, warning
from openrlhf_mtp.runlog.notices import read_notices
from openrlhf_mtp.runlog.rows import Row, read_rows

SHOWN: tuple[tuple[str, str, str], ...] = (
    (metrics.POLICY_REWARD, "reward", ".2f"),
    (metrics.EVAL_ACCURACY, "held-out", ".2f"),
    (metrics.SPEC_MEAN_ACCEPTANCE_LENGTH, "accept", ".2f"),
    (metrics.MTP_LOSS, "loss", ".3f"),
    (metrics.MTP_EXPECTED_LENGTH, "expect", ".2f"),
    (metrics.PERF_ROLLOUT_TOK_S, "tok/s", ".0f"),
    (metrics.TIME_STEP_S, "s/step", ".1f"),
)
"""Metric, short name, format: what fits into a narrow terminal, in order of importance."""


def describe(row: Row) -> str:
    """The shown metrics of a row, those that it has."""
    return "  ".join(f"{short} {row[name]:{form}}" for name, short, form in SHOWN if name in row)


class Concerns:
    """Messages to show once, not at every step: notices, and that trainer and engines begin to disagree."""

    def __init__(self, rows: Sequence[Row] = (), notices: Sequence[str] = ()) -> None:
        self._rows = list(rows)
        self._parted = disagree(self._rows)
        self._heard = set(notices)

    def hear(self, notices: Sequence[str]) -> list[str]:
        """A warning for each notice that was not said before."""
        fresh = [text for text in notices if text not in self._heard]
        self._heard.update(fresh)
        return [f"warning: {text}" for text in fresh]

    def see(self, row: Row) -> str | None:
        """A warning if this row is where a disagreement begins."""
        self._rows.append(row)
        before, self._parted = self._parted, disagree(self._rows[-2 * WINDOW :])
        if before or not self._parted:
            return None
        return f"warning: step {row[metrics.STEP]:.0f}: {warning(self._rows)}"


class _PlainLines:
    """One line a step, for logs and pipes; between two steps a sign of life every half minute."""

    def __init__(self, title: str, total: int | None) -> None:
        self._title, self._total = title, total
        self._of = f"/{total}" if total else ""
        self._first: int | None = None
        self._start = 0.0
        self._step: int | None = None
        self._stepped = self._said = time.monotonic()

    def wait(self, activity: str) -> None:
        """Say what is waited for, if nothing was said for long."""
        now = time.monotonic()
        if now - self._said < LINE_EVERY_S:
            return
        self._said = now
        if not activity:
            what = "starting" if self._step is None else f"in the step after {self._step}"
            text = f"{self._title}: {what}, {now - self._stepped:.0f} s so far"
        elif self._step is None:
            text = f"{self._title}: {activity}"
        else:
            text = f"{self._title} {self._step + 1}{self._of} · {activity}"
        print(text, file=sys.stderr, flush=True)

    def show(self, row: Row) -> None:
        self._stepped = self._said = time.monotonic()
        step = self._step = int(row[metrics.STEP])
        if self._first is None:  # the start-up before the first row says nothing about the rate
            self._first, self._start = step, time.time()
        done, left = step - self._first, ""
        if self._total and done:
            left = f"  left {(time.time() - self._start) / done * (self._total - step):.0f} s"
        print(f"{self._title} {step}{self._of}  {describe(row)}{left}", file=sys.stderr, flush=True)


class _News:
    """The rows and notices of a run folder that were not shown yet."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder
        earlier = self._rows()
        self._seen, self._concerns = len(earlier), Concerns(earlier, read_notices(run_folder))

    def _rows(self) -> list[Row]:
        return read_rows(self._folder / METRICS)[0]

    def follow(
        self,
        ended: threading.Event,
        show: Callable[[Row], None],
        say: Callable[[str], None],
        wait: Callable[[str], None],
    ) -> None:
        """Show each row and say each warning as it comes, until the run has ended; `wait` is called in between with
        what the run is at."""
        while True:
            last = ended.wait(0.5)
            rows = self._rows()
            fresh, self._seen = (
                rows[self._seen :],
                len(rows),
            )  # fewer when a resumed run continues before its last row
            for row in fresh:
                show(row)
                if (concern := self._concerns.see(row)) is not None:
                    say(concern)
            for notice in self._concerns.hear(read_notices(self._folder)):
                say(notice)
            if last:
                return
            wait(read_activities(self._folder))


@contextmanager
def follow_run(run_folder: Path, *, title: str, total: int | None = None) -> Iterator[None]:
    """Show each new row of the run folder until the context ends, on standard error or in the whole it is a part of.

    Args:
        run_folder: where `metrics.jsonl` grows.
        title: put before each line.
        total: number of the last step, for the bar and the time left; None when it is not known.
    """
    forget_activities(run_folder)
    watch = _watch_bar if Console(stderr=True).is_terminal else _watch_lines
    watch = watch if whole() is None else _watch_part
    with shown_beside(watch, _News(run_folder), title, total):
        yield


def _watch_lines(ended: threading.Event, news: _News, title: str, total: int | None) -> None:
    lines = _PlainLines(title, total)
    news.follow(ended, lines.show, lambda text: print(text, file=sys.stderr, flush=True), lines.wait)


def _watch_part(ended: threading.Event, news: _News, title: str, total: int | None) -> None:
    told, started = whole(), False
    assert told is not None

    def show(row: Row) -> None:
        nonlocal started
        if not started:  # up to the first row it was the start
            told.enter(title)
            started = True
        told.step(int(row[metrics.STEP]), total, describe(row))

    news.follow(ended, show, told.print, told.remark)


def _watch_bar(ended: threading.Event, news: _News, title: str, total: int | None) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        last = f"{title}: starting"
        task = progress.add_task(last, total=total)

        def show(row: Row) -> None:
            nonlocal last
            last = f"{title}  {describe(row)}"
            progress.update(task, completed=int(row[metrics.STEP]), description=last)

        def wait(activity: str) -> None:
            progress.update(task, description=f"{title}: {activity}" if activity else last)

        def say(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False)

        news.follow(ended, show, say, wait)
