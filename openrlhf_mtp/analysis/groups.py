"""Runs that differ only in their seed are one curve with a band, not several curves.

Two runs belong together if their resolved jobs (`run.yaml`) are the same once the seed and the places where things lie
are taken out: `train.seed`, whatever lies inside the run's own folder, and a `seed-3`, `seed_3`, `seed3` in any other
path (the head that the same seed's pre-RL stage wrote).
"""

import itertools
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.anchor_records import Records
from openrlhf_mtp.runlog.rows import Row
from openrlhf_mtp.runlog.run import Run

_SEED = re.compile(r"[-_.]?seed[-_=]?\d+")
_SEED_KEYS = ("train.seed",)
_PLACE_KEYS = ("ckpt.path", "ckpt.output_dir")


class GroupBy(StrEnum):
    """The rule by which runs form one group."""

    SEED = "seed"
    FOLDER = "folder"
    NONE = "none"


@dataclass(frozen=True)
class Band:
    """A metric over a group's steps: mean, lowest and highest of its runs [n each]; NaN where a run's is not finite."""

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Group:
    """One curve of a figure: a run, or several that differ in the seed alone."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[str]:
        """Each run's seed as its job gives it; "default" if it gives none."""
        return [str(_flat(run.config).get("train.seed", "default")) for run in self.runs]

    @property
    def label(self) -> str:
        """The name, and of how many runs this is the mean."""
        return self.name if len(self.runs) == 1 else f"{self.name} ({len(self.runs)} runs)"

    def band(self, metric: str) -> Band:
        """A metric over the steps at which any run has it; a run that ended early leaves the mean to the rest."""
        values: dict[float, list[float]] = {}
        for run in self.runs:
            for step, value in zip(*run.series(metric), strict=True):
                values.setdefault(step, []).append(value)
        steps = sorted(values)
        # a number that is not finite must show, so it is not averaged away
        table = [v if all(map(math.isfinite, v)) else [math.nan] for v in (values[step] for step in steps)]
        return Band(
            steps, [math.fsum(v) / len(v) for v in table], [min(v) for v in table], [max(v) for v in table]
        )

    def has(self, *names: str) -> bool:
        """Whether any run logged any of these metrics."""
        return any(name in row for run in self.runs for row in run.rows for name in names)

    def mean_rows(self) -> list[Row]:
        """The runs' rows averaged step by step."""
        names = dict.fromkeys(name for run in self.runs for row in run.rows for name in row)
        rows: dict[float, Row] = {}
        for name in names:
            band = self.band(name)
            for step, value in zip(band.steps, band.mean, strict=True):
                rows.setdefault(step, {metrics.STEP: step})[name] = value
        return [rows[step] for step in sorted(rows)]

    def depths(self, base: str) -> int:
        """The number of depths that the runs logged under `base`."""
        depth = 0
        while self.has(metrics.depth_metric(base, depth + 1)):
            depth += 1
        return depth

    def recorded(self, *, held_out: bool = False) -> list[Records]:
        """The records of the runs' second half; a cold head would blur the picture of a trained one."""
        splits = (run.held_out if held_out else run.records for run in self.runs)
        return [split[step] for split in splits for step in sorted(split) if 2 * step >= max(split)]


Groups = Sequence[Group]


def together(table: Iterable[tuple[Sequence[float], Sequence[float]]]) -> NDArray[Any]:
    """Series on the steps that all of them have: [1 + number of series, n], steps first."""
    series = [dict(zip(steps, values, strict=True)) for steps, values in table]
    shared = sorted(set.intersection(*(set(one) for one in series)))
    return np.array([shared, *([one[step] for step in shared] for one in series)], dtype=np.float64)


def group_runs(runs: Sequence[Run], by: GroupBy = GroupBy.SEED) -> list[Group]:
    """Groups in the order in which their first runs come, with names that tell them apart."""
    found: dict[str, list[Run]] = {}
    for number, run in enumerate(runs):
        found.setdefault(_key(run, number, by), []).append(run)
    groups = [Group(_name(members), tuple(members)) for members in found.values()]
    names = [group.name for group in groups]
    return [
        group
        if names.count(group.name) == 1
        else replace(group, name=f"{_parent(group.runs[0])}/{group.name}")
        for group in groups
    ]


def _key(run: Run, number: int, by: GroupBy) -> str:
    if by is GroupBy.FOLDER:
        return str(run.path.resolve().parent)
    if by is GroupBy.NONE or not run.config:
        return str(number)
    return repr(sorted(_without_places(run).items()))


def _without_places(run: Run) -> dict[str, str]:
    """The job as flat names and values, without its seed and its places."""
    own = str(run.path.resolve()) + os.sep
    kept = {}
    for name, value in _flat(run.config).items():
        text = str(value)
        inside = str(Path(text).resolve()).startswith(own) if os.sep in text else False
        if name not in (*_SEED_KEYS, *_PLACE_KEYS) and not inside:
            kept[name] = _SEED.sub("", text)
    return kept


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _name(runs: list[Run]) -> str:
    """The common beginning of the folders' names, without the seed; the parent's name if it is too short."""
    if len(runs) == 1:
        return runs[0].name
    names = {_SEED.sub("", run.path.resolve().name) for run in runs}
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    common = "".join(letters[0] for letters in alike)
    common = common if len(names) == 1 else re.sub(r"\d+$", "", common)
    return common.strip("-_.") if len(common) > 1 else _parent(runs[0])


def _parent(run: Run) -> str:
    return run.path.resolve().parent.name
