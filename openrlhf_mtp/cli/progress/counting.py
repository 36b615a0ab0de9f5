"""Progress of work counted in this process: a bar on a terminal, elsewhere a line at least every half minute."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from openrlhf_mtp.cli.progress.line import LINE_EVERY_S, shown_beside, whole
from openrlhf_mtp.runlog.count import Count


@contextmanager
def counted(title: str, count: Count) -> Iterator[None]:
    """Show a count on standard error until the context ends, or tell it to the whole that this is a part of.

    Args:
        title: put before it.
        count: whoever does the work advances it.
    """
    console = Console(stderr=True)
    show = _bar if console.is_terminal else _lines
    show = show if whole() is None else _part
    with shown_beside(show, title, count, console):
        yield


def _lines(ended: threading.Event, title: str, count: Count, _: Console) -> None:
    while not ended.wait(LINE_EVERY_S):
        print(f"{title}: {count}", file=sys.stderr, flush=True)
    print(f"{title}: {count.done}/{count.total} {count.unit}", file=sys.stderr, flush=True)


def _part(ended: threading.Event, title: str, count: Count, _: Console) -> None:
    told = whole()
    assert told is not None
    while not ended.wait(0.5) and not count.has_begun:
        pass  # up to then it is the start of what does the work
    told.enter(title)
    while not ended.wait(0.5):
        told.step(count.done, count.total, count.detail)
    told.step(count.done, count.total, count.detail)


def _bar(ended: threading.Event, title: str, count: Count, console: Console) -> None:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=16))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=count.total)
        while not ended.wait(0.5):
            progress.update(task, completed=count.done, description=f"{title}: {count}")
        progress.update(task, completed=count.done)
