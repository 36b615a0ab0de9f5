"""The run folder: what a run leaves behind, and the only code that writes and reads its files.

    run.yaml            the resolved job; `openrlhf-mtp train run.yaml` runs it again
    command.txt         argv, package versions, git revision
    machine.json        what was made of the machine: precision, threads, and the measurement behind them
    metrics.jsonl       one line a step, names from `openrlhf_mtp.runlog.metrics`
    notices.jsonl       what a user should know beside the numbers (`openrlhf_mtp.runlog.notices`)
    records/*.npz       per-anchor entropy and acceptance of some steps (`openrlhf_mtp.runlog.anchor_records`)
    summary.json        what the run came to
    tensorboard/        the rows of metrics.jsonl as TensorBoard events
    figures/, report.html   written by `openrlhf_mtp.analysis`
    logs/POD/SESSION/   on Kubernetes: what each pod printed, written by `openrlhf_mtp.cluster.pod_logs`

A run may die at any moment: a line is written in one piece and flushed to the disk before the step counts as logged,
whole files are written beside their name and moved over it, and a reader drops a last line that was cut off. A number
that is not finite is stored as `null` (JSON has no NaN) and read back as NaN, so a missing metric and a broken one stay
apart.
"""

import json
import math
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.anchor_records import RECORDS, Records, drop_records, read_records
from openrlhf_mtp.runlog.notices import NOTICES, read_notices
from openrlhf_mtp.runlog.provenance import git_revision, installed_versions

RUN_YAML = "run.yaml"
COMMAND = "command.txt"
MACHINE = "machine.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
TENSORBOARD = "tensorboard"
FIGURES = "figures"
REPORT = "report.html"

Row = dict[str, float]


class RunFolderError(ValueError):
    """The folder cannot be used as asked; the message says what was found and what to do."""


@dataclass(frozen=True)
class Run:
    """A run folder as read back; empty fields where the file is missing. `warnings` says what could not be read.

    `name` is what legends and tables call the run: its folder's name unless the reader chose another. `records` and
    `held_out` are the recorded anchors by step, of the rollout and of held-out prompts; `notices` is what the run said.
    """

    path: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    rows: list[Row] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    records: dict[int, Records] = field(default_factory=dict)
    held_out: dict[int, Records] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int | None:
        """The step logged last; None if there is none."""
        return int(self.rows[-1][metrics.STEP]) if self.rows else None

    def series(self, metric: str) -> tuple[list[float], list[float]]:
        """Steps and values of one metric, over the rows that have it (NaN where it was not finite)."""
        present = [row for row in self.rows if metric in row]
        return [row[metrics.STEP] for row in present], [row[metric] for row in present]


def claim(out: Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Make `out` ready for a run and return it.

    Raises `RunFolderError` if it already holds a run and neither `resume` nor `overwrite` is set, if it holds something
    that is not a run, or if it cannot be written to. `overwrite` removes the earlier run's files, and nothing else.
    """
    if resume and overwrite:
        raise RunFolderError("got both --resume and --overwrite; choose one")
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; give a folder with --out")
    if is_run(out) and not (resume or overwrite):
        raise RunFolderError(
            f"{out} already holds a run; continue it with --resume, or start anew with --overwrite"
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
    for name in (RECORDS, TENSORBOARD, FIGURES):
        shutil.rmtree(out / name, ignore_errors=True)


class RunWriter:
    """Writes a run folder, a row a step. Use as a context manager, or call `close`.

    `after_step` continues an earlier run from that step: rows and records of later steps, which the resumed run will
    write again, are dropped. None starts from nothing, so all earlier rows are (`claim` is what protects a finished
    run). A step may be logged once, and steps must grow.
    """

    def __init__(self, out: Path, *, after_step: int | None = None) -> None:
        self.out = out
        self._metrics = out / METRICS
        self._last_step = -1
        out.mkdir(parents=True, exist_ok=True)
        self._rewind(-1 if after_step is None else after_step)
        (out / TENSORBOARD).mkdir(exist_ok=True)
        self._events = EventFileWriter(str(out / TENSORBOARD))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush the TensorBoard events; the other files are complete after every call."""
        self._events.close()

    def append(self, row: Mapping[str, float]) -> None:
        """Log one step. Raises `UnknownMetric` for an undeclared name and `ValueError` for a step out of order."""
        metrics.validate(row)
        step = row.get(metrics.STEP)
        if step is None or step <= self._last_step:
            raise ValueError(f"a row needs a step above {self._last_step}, got {step}")
        self._last_step = int(step)
        numbers = {name: float(value) for name, value in row.items()} | {metrics.STEP: int(step)}
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(_encoded(numbers))
            file.flush()
            os.fsync(file.fileno())
        self._add_events(numbers)

    def amend(self, extra: Mapping[str, float], *, step: int) -> None:
        """Add metrics to a step's row, for what is measured after the step was logged (an evaluation).

        Raises `ValueError` if that step was not logged.
        """
        metrics.validate(extra)
        rows, _ = read_rows(self._metrics)
        row = next((row for row in rows if row[metrics.STEP] == step), None)
        if row is None:
            raise ValueError(
                f"step {step} has no row to add {', '.join(extra)} to; the last one is {self.last_step}"
            )
        row.update({name: float(value) for name, value in extra.items()})
        write_atomically(self._metrics, "".join(_encoded(row) for row in rows))
        self._add_events({**extra, metrics.STEP: step})

    @property
    def last_step(self) -> int:
        """The step logged last, by this writer or before it resumed; -1 if there is none."""
        return self._last_step

    def _add_events(self, numbers: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=n, simple_value=v) for n, v in numbers.items() if n != metrics.STEP]
        self._events.add_event(Event(step=int(numbers[metrics.STEP]), summary=Summary(value=values)))
        self._events.flush()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved job as `run.yaml`."""
        write_atomically(
            self.out / RUN_YAML, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        )

    def write_command(self, argv: Sequence[str]) -> None:
        """Write `command.txt`: the command line, the versions of the packages that matter, the git revision."""
        lines = [shlex.join(argv), *(f"{name} {version}" for name, version in installed_versions().items())]
        write_atomically(self.out / COMMAND, "\n".join([*lines, f"git {git_revision()}"]) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write what the run came to, as `summary.json`."""
        write_atomically(self.out / SUMMARY, json.dumps(dict(summary), indent=2) + "\n")

    def _rewind(self, after_step: int) -> None:
        rows, _ = read_rows(self._metrics)
        kept = [row for row in rows if row[metrics.STEP] <= after_step]
        write_atomically(self._metrics, "".join(_encoded(row) for row in kept))
        self._last_step = int(kept[-1][metrics.STEP]) if kept else -1
        drop_records(self.out, after_step=after_step)


def write_machine(out: Path, record: Mapping[str, Any]) -> None:
    """Write `machine.json`."""
    write_atomically(out / MACHINE, json.dumps(dict(record), indent=2) + "\n")


def read_machine(out: Path) -> dict[str, Any]:
    """What `machine.json` holds; nothing where there is none or it cannot be read."""
    return _parsed(out / MACHINE, json.loads, json.JSONDecodeError, [])


def read_run(path: Path) -> Run:
    """Read a run folder. A missing or broken file leaves its field empty and a line in `warnings`.

    Raises `RunFolderError` only if `path` is not a run folder at all.
    """
    if not path.is_dir():
        raise RunFolderError(f"{path} is not a folder; give the folder a run wrote with --out")
    if not is_run(path):
        raise RunFolderError(
            f"{path} holds neither {METRICS} nor {RUN_YAML}; give the folder a run wrote with --out"
        )
    rows, warnings = read_rows(path / METRICS)
    config = _parsed(path / RUN_YAML, yaml.safe_load, yaml.YAMLError, warnings)
    summary = _parsed(path / SUMMARY, json.loads, json.JSONDecodeError, warnings)
    command = path / COMMAND
    return Run(
        path=path,
        name=path.resolve().name,
        config=config,
        command=command.read_text(encoding="utf-8") if command.exists() else "",
        rows=rows,
        summary=summary,
        records=read_records(path, "rollout", warnings.append),
        held_out=read_records(path, "heldout", warnings.append),
        notices=read_notices(path),
        warnings=warnings,
    )


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """Rows of a `metrics.jsonl` and a warning for each line that is not a row (a cut-off last line, for example)."""
    if not path.exists():
        return [], [f"{path.name} is missing"]
    rows: list[Row] = []
    warnings: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = {name: math.nan if v is None else float(v) for name, v in json.loads(line).items()}
            row[metrics.STEP] = int(row[metrics.STEP])
        except (ValueError, AttributeError, TypeError, KeyError, OverflowError):
            warnings.append(f"{path.name} line {number} is not a step and was left out")
        else:
            rows.append(row)
    if not rows:
        warnings.append(f"{path.name} holds no step")
    return rows, warnings


def _encoded(row: Mapping[str, float]) -> str:
    """One line of metrics.jsonl; the step is a whole number and comes first."""
    numbers = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps({metrics.STEP: None, **numbers, metrics.STEP: int(row[metrics.STEP])}) + "\n"


def _parsed(path: Path, parse: Any, broken: type[Exception], warnings: list[str]) -> dict[str, Any]:
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
