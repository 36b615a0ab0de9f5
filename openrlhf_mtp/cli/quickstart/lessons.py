"""The example's `teach.py` as a stage: as a user would run it, its progress in our one line, its output in the log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path

from openrlhf_mtp.cli.failures import RunFailed
from openrlhf_mtp.cli.progress.line import whole

LESSONS = "lessons"
USUAL_BATCHES = 440
ENVIRONMENT = {
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DS_ACCELERATOR": "cpu",
}
"""Unless the user set them. Threads that wait actively make a tiny model four times slower as soon as the machine has
anything else to do; the rest keeps other packages' notices out of the output."""

_PROGRESS = re.compile(
    r"^teach \((?P<teacher>\w+)\) (?P<batch>\d+)  (?P<rate>\S+ batch/s)(?:.*(?P<accuracy>accuracy \S+))?"
)


def take_lessons(script: Path, out: Path, log: Path) -> None:
    """Run the lessons.

    Args:
        script: `teach.py`.
        out: folder of the policy.
        log: file to which everything it prints is added.

    Raises:
        RunFailed: they ended without a policy, with the script's last line.
    """
    command = [sys.executable, "-W", "ignore::FutureWarning", str(script), "--out", str(out)]
    last: deque[str] = deque(maxlen=1)
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**ENVIRONMENT, **os.environ},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                last.append(line.strip())
                _tell(line)
        except BaseException:  # an interrupt that reached this process alone
            process.kill()
            raise
    if process.returncode:
        raise RunFailed(
            f"{last[0] if last else 'no message'} (exit code {process.returncode} of {script.name})"
        )


def _tell(line: str) -> None:
    found, told = _PROGRESS.match(line), whole()
    if told is None or found is None:
        return
    batch = int(found["batch"])
    detail = "  ".join(
        part for part in (f"{found['teacher']} teacher", found["accuracy"], found["rate"]) if part
    )
    told.step(batch, max(USUAL_BATCHES, batch + 1), detail)
