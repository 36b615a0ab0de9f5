"""An arm's job file: the studies' base job with the arm's settings, written once and then the user's to edit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.study import STUDIES, Arm, Study

BASE = STUDIES / "job.yaml"

HEADER = """\
# Study "{study}", arm "{arm}". Hardware: two CPU cores, 8 GB; no GPU. Minutes: see README.md beside the study.
# Written by harness/jobs.py from the base job and the arm's settings; edit it freely, a run reads this file:
#
#   python examples/studies/{study}/study.py
#
# which makes what it names and sets seed and paths for each run.

"""


def job_text(study: Study, arm: Arm) -> str:
    """The job file of an arm."""
    base = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    body = yaml.safe_dump(merged(base, arm.settings), sort_keys=False, default_flow_style=None, width=110)
    return HEADER.format(study=study.name, arm=arm.name) + body


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them replaced."""
    result = dict(base)
    for name, value in change.items():
        below = result.get(name)
        inside = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[name] = merged(below, value) if inside else value
    return result


def job_file(study: Study, arm: Arm) -> Path:
    """The arm's job file, written if it is not there."""
    owner = study.runs_of or study
    path = study.jobs / f"{arm.name}.yaml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(job_text(owner, arm), encoding="utf-8")
    return path
