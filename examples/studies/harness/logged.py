"""A process of a study whose output goes to a file."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.study import STUDIES


def run_logged(command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None) -> int:
    """Run a command from the top of the checkout and append what it prints to a file.

    Args:
        command: its words.
        log: the file.
        variables: of the environment, beside those of this process.

    Returns:
        Its exit code.
    """
    with log.open("a", encoding="utf-8") as file:
        return subprocess.run(
            command,
            cwd=STUDIES.parents[1],
            env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **(variables or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
