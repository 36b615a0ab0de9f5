"""`python -m ci.benchmark` and `python -m ci.e2e`, started as a CI job starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start(words: Sequence[str], folder: Path, *, module: str = "ci.benchmark") -> subprocess.Popen[str]:
    """In a folder, in a process group of its own; what CI would show goes to `shown.md`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GITHUB_STEP_SUMMARY": str(folder / "shown.md"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
