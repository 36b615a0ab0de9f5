"""Errors that cross Ray arrive wrapped; the user sees the one a worker raised, and where the workers' output is."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from openrlhf_mtp.cli.out_of_memory import out_of_memory_words
from openrlhf_mtp.cli.processes import Terminated
from openrlhf_mtp.cli.worker_output import output
from openrlhf_mtp.config.errors import JobError

_PID = re.compile(r"^\s*pid: (\d+)", re.MULTILINE)
"""In the text of an actor's death."""


class RunFailed(RuntimeError):
    """A run ended with an error in one of its processes; the message is that error's."""


@contextmanager
def user_facing_errors(run: Path) -> Iterator[None]:
    """Unwrap Ray's task errors. Enter inside the Ray session, whose logs are read.

    An interrupt from the terminal reaches workers and engines too, as SIGTERM does from some schedulers. They then fail
    one way or another; whatever comes back after it is the interrupt.

    Args:
        run: the run folder: what can be resumed, and on Kubernetes what workers of other pods printed.

    Raises:
        RunFailed: with the worker's error type and message; its traceback is the cause.
        JobError: a worker's own, which another attempt would end with, too.
        KeyboardInterrupt: the user ended the run, or SIGTERM did (`Terminated`); the message says how to continue it.
    """
    from ray.exceptions import RayError

    with _noticed_ends() as arrived:
        try:
            yield
        except KeyboardInterrupt as end:
            raise _kind(arrived)(how_to_continue(run)) from end
        except RayError as error:
            if arrived:
                raise _kind(arrived)(how_to_continue(run)) from error
            cause = _cause(error)
            raise (
                JobError(str(cause)) if isinstance(cause, JobError) else RunFailed(_words(cause, run))
            ) from error


def _kind(arrived: set[int]) -> type[KeyboardInterrupt]:
    """The exception that names what ended the run.

    The signals decide: from within `ray.get` the exception of any signal comes back as a plain KeyboardInterrupt.
    """
    return Terminated if signal.SIGTERM in arrived else KeyboardInterrupt


def how_to_continue(run: Path) -> str:
    """Say how to continue an interrupted run: DeepSpeed names a complete checkpoint in a file `latest` beside it."""
    saved = max(run.rglob("latest"), key=lambda file: file.stat().st_mtime, default=None)
    if saved is not None:
        step = saved.read_text(encoding="utf-8").strip()
        return f"{run} holds a checkpoint ({step}); to continue from it, run the same command with --resume"
    return f"{run} holds no checkpoint yet; to start over, run the same command with --overwrite"


@contextmanager
def _noticed_ends() -> Iterator[set[int]]:
    """The signals that told this command to end so far, beside what is done about them otherwise."""
    seen: set[int] = set()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def notice(number: int, frame: FrameType | None) -> None:
        seen.add(number)
        usual = before[signal.Signals(number)]
        assert callable(usual)
        usual(number, frame)

    theirs = {number: usual for number, usual in before.items() if callable(usual)}
    for number in theirs:
        signal.signal(number, notice)
    try:
        yield seen
    finally:
        for number, usual in theirs.items():
            signal.signal(number, usual)


def _cause(error: BaseException) -> BaseException:
    """The error that a worker raised."""
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError):
        error = error.cause
    return error


def _words(cause: BaseException, run: Path) -> str:
    """A worker's error, what the workers printed, and where all their output is."""
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError

    node: Any = ray._private.worker._global_node
    found = output(run, Path(node.get_session_dir_path()))
    text, pid = str(cause).strip(), None
    if isinstance(
        cause, RayActorError
    ):  # its text is a whole traceback or a table; the last line is the error
        pid = _PID.search(text)
        text = text.splitlines()[-1]
    dead = int(pid[1]) if pid else None
    printed = [line for line in found.errors(dead) if text[:60] not in line] or found.last_lines(dead)
    if isinstance(cause, OutOfMemoryError):  # workers that were killed printed nothing about it
        text, printed = out_of_memory_words(text), []
    message = [f"{type(cause).__name__}: {text}"]
    if printed:
        message += ["the workers printed:", *(f"  {line}" for line in printed)]
    message.append(f"all output of the workers: {found.where}")
    return "\n".join(message)
