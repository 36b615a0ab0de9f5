"""A run folder as it is read back, however little the run left behind."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from openrlhf_mtp.config.run_files import COMMAND, METRICS, RUN_YAML, SUMMARY, TRAINED_HEAD
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.anchor_records import Records, read_records
from openrlhf_mtp.runlog.notices import read_notices
from openrlhf_mtp.runlog.rows import Row, read_rows
from openrlhf_mtp.runlog.run_folder import RunFolderError, is_run, read_mapping
from openrlhf_mtp.runlog.temperature_sweep import TemperaturePoint, read_temperatures


@dataclass(frozen=True)
class Run:
    """A run folder as read back; empty fields where the file is missing. `warnings` says what could not be read.

    `name` is what legends and tables call the run: its folder's name unless the reader chose another. `records` and
    `held_out` are the recorded anchors by step, of the rollout and of held-out prompts; `temperatures` are the points
    of the temperature sweep of the head that the run began with or made; `notices` is what the run said.
    """

    path: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    rows: list[Row] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    records: dict[int, Records] = field(default_factory=dict)
    held_out: dict[int, Records] = field(default_factory=dict)
    temperatures: list[TemperaturePoint] = field(default_factory=list)
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


def read_run(path: Path) -> Run:
    """Read a run folder. A missing or broken file leaves its field empty and a line in `warnings`.

    Raises:
        RunFolderError: `path` is not a run folder at all.
    """
    if not path.is_dir():
        raise RunFolderError(f"{path} is not a folder; give the folder a run wrote with --out")
    if not is_run(path):
        raise RunFolderError(
            f"{path} holds neither {METRICS} nor {RUN_YAML}; give the folder a run wrote with --out"
        )
    rows, warnings = read_rows(path / METRICS)
    config = read_mapping(path / RUN_YAML, yaml.safe_load, yaml.YAMLError, warnings)
    summary = read_mapping(path / SUMMARY, json.loads, json.JSONDecodeError, warnings)
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
        temperatures=read_temperatures(path, warnings.append)
        or read_temperatures(path / TRAINED_HEAD, warnings.append),
        notices=read_notices(path),
        warnings=warnings,
    )
