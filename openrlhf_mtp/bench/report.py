"""Print a measurement as a table and leave it as JSON, with what it was taken on."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.runlog.provenance import git_revision, installed_versions


def default_device() -> str:
    """Name of torch's device: cuda if there is a GPU, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name(device: str) -> str:
    """The GPU's name, or the CPU with the threads that torch uses."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def provenance() -> dict[str, Any]:
    """The command, code and machine that a result came from, and when (UTC)."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "revision": git_revision(),
        "versions": installed_versions(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def show_seconds(digits: int) -> Callable[[str, float], None]:
    """A report of seconds with so many digits: a line per run, plain text that reads the same without a terminal."""

    def show(form: str, seconds: float) -> None:
        print(f"{form}: {seconds:.{digits}f} s", file=sys.stderr, flush=True)

    return show


def table(
    title: str,
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    wrap: Collection[str] = (),
    min_width: int | None = None,
) -> Table:
    """A table for a terminal of 80 columns: names (`form`) to the left, figures to the right.

    Args:
        title, caption: lines above and below.
        columns: headings.
        rows: a cell for each column.
        wrap: columns whose heading may take two lines.
        min_width: of the whole table, for a caption that is wider than its rows.
    """
    made = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", min_width=min_width
    )
    for column in columns:
        made.add_column(column, justify="left" if column == "form" else "right", no_wrap=column not in wrap)
    for row in rows:
        made.add_row(*row)
    return made


def publish(out: Path, file: str, record: Mapping[str, Any], tables: Iterable[Table]) -> None:
    """Write the record and its provenance into the folder, print the tables and the file's name."""
    content = {**provenance(), **record}
    write_atomically(out / file, json.dumps(content, indent=2) + "\n")
    console = Console()
    for one in tables:
        console.print(one)
    print(f"result: {out / file}")
