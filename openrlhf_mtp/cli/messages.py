"""Messages of the commands: wrapped to the terminal, on any encoding, errors on standard error."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path

WIDEST = 100
"""Columns of a message on a wide terminal; longer lines are hard to read."""


def terminal_width() -> int:
    """Columns to use."""
    return min(WIDEST, shutil.get_terminal_size((80, 24)).columns)


def wrapped(text: str, width: int) -> str:
    """`text` with its lines wrapped, each continued four columns further in than it began; paths stay whole."""
    return "\n".join(
        textwrap.fill(
            line.strip(),
            width,
            initial_indent=indent,
            subsequent_indent=f"{indent}    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
        for indent in (line[: len(line) - len(line.lstrip())],)
    )


def say(level: str, text: object) -> None:
    """Print an `error` or a `warning` on standard error; where that cannot be written, the exit code has to do."""
    with contextlib.suppress(OSError):
        print(wrapped(f"{level}: {text}", terminal_width()), file=sys.stderr, flush=True)


def accept_any_text() -> None:
    """Let output that its encoding cannot hold (a Chinese path on an ASCII terminal) come out escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def keep_traceback(problem: BaseException) -> Path | None:
    """Write an error's traceback where it can be looked at later; None where nothing can be written."""
    lines = "".join(traceback.format_exception(problem))
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="openrlhf-mtp-",
            suffix=".log",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as file:
            file.write(lines)
    except OSError:
        return None
    return Path(file.name)
