"""Errors that cross Ray arrive wrapped; the user sees the one a worker raised, and where the workers' output is."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from openrlhf_mtp.config.errors import JobError

_ERROR_LINE = re.compile(r"(?:^|\s)(\w+(?:\.\w+)*(?:Error|Exception|Timeout|Refused)): \S")
_NOISE = (
    "EngineDeadError",
    "EngineCore failed to start",
    "Engine core initialization failed",
    "RayTaskError",
    "resource_tracker",
    "KeyError: '/",
)
_SHOWN = 3


class RunFailed(RuntimeError):
    """A run ended with an error in one of its processes; the message is that error's."""


def error_lines(logs: Path) -> list[str]:
    """The first error lines in the output of each Ray worker, for errors whose cause was only printed.

    vLLM's engine processes report "see stack trace above" and print the reason to their own output.
    """
    found: list[str] = []
    for path in sorted(logs.glob("worker-*.*")):
        for line in path.read_text(errors="replace").splitlines():
            if _ERROR_LINE.search(line) and not any(noise in line for noise in _NOISE):
                text = re.sub(
                    r"^\(\w+ pid=\d+\)\s*|^(?:ERROR|INFO|WARNING) [\d: -]+\[[^\]]*\]\s*", "", line
                ).strip()
                if text not in found:
                    found.append(text)
    return found[:_SHOWN]


@contextmanager
def user_facing_errors(run: Path) -> Iterator[None]:
    """Unwrap Ray's task errors. Enter inside the Ray session, whose logs are read.

    An interrupt from the terminal reaches workers and engines too, which then fail one way or another; whatever comes
    back after it is the interrupt.

    Args:
        run: the run folder, to say what can be resumed.

    Raises:
        RunFailed: with the worker's error type and message; its traceback is the cause.
        JobError: a worker's own, which another attempt would end with, too.
        KeyboardInterrupt: the user ended the run; the message says how it goes on.
    """
    from ray.exceptions import RayActorError, RayTaskError

    with _noticed_interrupt() as interrupted:
        try:
            yield
        except KeyboardInterrupt as end:
            raise KeyboardInterrupt(how_to_go_on(run)) from end
        except (RayTaskError, RayActorError) as error:
            if interrupted.is_set():
                raise KeyboardInterrupt(how_to_go_on(run)) from error
            cause = _cause(error)
            raise JobError(str(cause)) if isinstance(cause, JobError) else RunFailed(_words(cause)) from error


def how_to_go_on(run: Path) -> str:
    """What an interrupted run left: DeepSpeed names a checkpoint that is whole in a file `latest` beside it."""
    saved = max(run.rglob("latest"), key=lambda file: file.stat().st_mtime, default=None)
    if saved is not None:
        step = saved.read_text(encoding="utf-8").strip()
        return f"{run} holds a checkpoint ({step}); the same command with --resume goes on from it"
    return f"{run} holds no checkpoint yet; the same command with --overwrite begins anew"


@contextmanager
def _noticed_interrupt() -> Iterator[threading.Event]:
    """Whether SIGINT has arrived, beside what is done about it otherwise."""
    seen, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def notice(number: int, frame: FrameType | None) -> None:
        seen.set()
        if callable(before):
            before(number, frame)

    if threading.current_thread() is not threading.main_thread() or before is None:
        yield seen
        return
    signal.signal(signal.SIGINT, notice)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _cause(error: BaseException) -> BaseException:
    """The error that a worker raised."""
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError):
        error = error.cause
    return error


def _words(cause: BaseException) -> str:
    """A worker's error, what the workers printed, and where all their output is."""
    import ray
    from ray.exceptions import RayActorError

    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    text = str(cause).strip()
    if isinstance(cause, RayActorError):  # its text is a whole traceback; the last line is the error
        text = text.splitlines()[-1]
    printed = [line for line in error_lines(logs) if text[:60] not in line]
    message = [f"{type(cause).__name__}: {text}"]
    if printed:
        message += ["the workers printed:", *(f"  {line}" for line in printed)]
    message.append(f"all output of the workers: {logs} (or run with --verbose)")
    return "\n".join(message)
