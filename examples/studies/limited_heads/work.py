"""A study's pieces of work, each a process of its own."""

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.runs import PROGRAM, RunsFailed


def words_of(script: Path, stage: Sequence[str], runs: Path, *, smoke: bool) -> list[str]:
    """The words after `python` of one piece."""
    return [str(script), *stage, "--runs", str(runs.absolute()), *(["--smoke"] if smoke else [])]


def run_stages(
    script: Path, stages: Sequence[Sequence[str]], runs: Path, *, smoke: bool, parallel: int
) -> None:
    """Run pieces of work, several at a time, one thread each; a failed one stops the study after the others.

    Raises:
        RunsFailed: some ended with an error.
    """

    def one(stage: Sequence[str]) -> int:
        command = [*PROGRAM[:3], *words_of(script, stage, runs, smoke=smoke)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return subprocess.run(command, env=environment, check=False).returncode

    with ThreadPoolExecutor(parallel) as pool:
        codes = list(pool.map(one, stages))
    failed = [" ".join(stage) for stage, code in zip(stages, codes, strict=True) if code]
    if failed:
        raise RunsFailed("these stages ended with an error:\n" + "\n".join(failed))
