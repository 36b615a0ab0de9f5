"""Errors that cross Ray arrive wrapped; the user sees the one a worker raised, and where the workers' output is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
def user_facing_errors() -> Iterator[None]:
    """Unwrap Ray's task errors. Enter inside the Ray session, whose logs are read.

    Raises:
        RunFailed: with the worker's error type and message; its traceback is the cause.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        yield
    except (RayTaskError, RayActorError) as error:
        cause: BaseException = error
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        logs = session / "logs"
        text = str(cause).strip()
        if isinstance(cause, RayActorError):  # its text is a whole traceback; the last line is the error
            text = text.splitlines()[-1]
        printed = [line for line in error_lines(logs) if text[:60] not in line]
        message = [f"{type(cause).__name__}: {text}"]
        if printed:
            message += ["the workers printed:", *(f"  {line}" for line in printed)]
        message.append(f"all output of the workers: {logs} (or run with --verbose)")
        raise RunFailed("\n".join(message)) from error
