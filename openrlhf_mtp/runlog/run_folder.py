"""The run folder: claimed before a run, and its whole files written (`openrlhf_mtp.config.run_files` lists them).

A run may die at any moment, so a file is written beside its name and moved over it.
"""

import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openrlhf_mtp.config.atomic_files import atomic_path, write_atomically
from openrlhf_mtp.config.run_files import (
    COMMAND,
    FIGURES,
    MACHINE,
    METRICS,
    NOTICES,
    RECORDS,
    REPORT,
    ROLLOUTS,
    RUN_YAML,
    SUMMARY,
    TENSORBOARD,
)
from openrlhf_mtp.runlog.provenance import git_revision, installed_versions


class RunFolderError(ValueError):
    """The folder cannot be used as asked; the message says what was found and what to do."""


def claim(out: Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Make `out` ready for a run and return it.

    Args:
        out: the folder; made if it is not there.
        resume: keep an earlier run in it.
        overwrite: remove an earlier run's files. Other files stay.

    Raises:
        RunFolderError: it holds a run and neither `resume` nor `overwrite` is set, both are set, it is a file, or it
            cannot be written to.
    """
    if resume and overwrite:
        raise RunFolderError("got both --resume and --overwrite; choose one")
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; give a folder with --out")
    if is_run(out) and not (resume or overwrite):
        raise RunFolderError(
            f"{out} already holds a run; continue it with --resume, or start over with --overwrite"
        )
    if overwrite:
        _remove_run(out)
    return writable(out)


def writable(out: Path) -> Path:
    """Make a folder, if it is not there, and see that files can be made in it: before the work, not after it.

    Raises:
        RunFolderError: it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {out}: {error.strerror}; choose another folder with --out"
        ) from error
    return out


def is_run(path: Path) -> bool:
    """Whether `path` holds a run's files."""
    return (path / METRICS).exists() or (path / RUN_YAML).exists()


def _remove_run(out: Path) -> None:
    for name in (RUN_YAML, COMMAND, MACHINE, METRICS, NOTICES, SUMMARY, REPORT):
        (out / name).unlink(missing_ok=True)
    for name in (RECORDS, ROLLOUTS, TENSORBOARD, FIGURES):
        shutil.rmtree(out / name, ignore_errors=True)


def write_config(out: Path, text: str) -> None:
    """Write the resolved job, as `Job.dump_yaml` gives it, as `run.yaml`."""
    write_atomically(out / RUN_YAML, text)


def write_command(out: Path, argv: Sequence[str]) -> None:
    """Write `command.txt`: the command line, the versions of the packages that matter, the git revision."""
    lines = [shlex.join(argv), *(f"{name} {version}" for name, version in installed_versions().items())]
    write_atomically(out / COMMAND, "\n".join([*lines, f"git {git_revision()}"]) + "\n")


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    """Write what the run came to, as `summary.json`."""
    write_atomically(out / SUMMARY, json.dumps(dict(summary), indent=2) + "\n")


def write_figure(out: Path, name: str, png: bytes | None) -> None:
    """Write a figure of the report, as `figures/NAME.png`; None removes the one of an earlier report."""
    path = out / FIGURES / f"{name}.png"
    if png is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_bytes(png)


def write_report_page(out: Path, html: str) -> Path:
    """Write the report's page, as `report.html`, and return its path."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / REPORT, html)
    return out / REPORT


def write_machine(out: Path, record: Mapping[str, Any]) -> None:
    """Write what was made of the machine, as `machine.json`."""
    write_atomically(out / MACHINE, json.dumps(dict(record), indent=2) + "\n")


def read_machine(out: Path) -> dict[str, Any]:
    """The contents of `machine.json`; empty if there is none or it cannot be read."""
    return read_mapping(out / MACHINE, json.loads, json.JSONDecodeError, [])


def read_mapping(
    path: Path, parse: Callable[[str], Any], broken: type[Exception], warnings: list[str]
) -> dict[str, Any]:
    """Read a file that holds a mapping; an empty one, and a line in `warnings`, where it cannot be read.

    Args:
        path: the file; one that is missing is no reason for a warning.
        parse: makes the mapping from its text.
        broken: what `parse` raises for a text that is cut off or odd.
        warnings: gets a line for a file that could not be read.
    """
    if not path.exists():
        return {}
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except broken:
        content = None
    if isinstance(content, dict):
        return content
    warnings.append(f"{path.name} could not be read and was left out")
    return {}
