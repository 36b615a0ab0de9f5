"""A pod that is told to stop has its last lines kept first: its preStop hook asks, by a file in the pod's `/tmp`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 5.0
"""Of a pod that stops; a volume that hangs must not use up its grace period."""


def memory_folder() -> Path:
    """This pod's record of its logs. It lasts as long as the logs themselves, longer than a container."""
    return Path(tempfile.gettempdir()) / "openrlhf-mtp-pod-logs"


def flush(
    folder: Path,
    timeout_s: float = PATIENCE_S,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Have everything kept that was printed up to now; False when nobody answers in time, or no logs are kept."""
    request = folder / "flush"
    if not folder.is_dir():
        return False
    request.touch()
    deadline = clock() + timeout_s
    while request.exists():
        if clock() >= deadline:
            request.unlink(missing_ok=True)
            return False
        sleep(0.1)
    return True


def asked(folder: Path) -> bool:
    """Whether someone waits for a flush. Ask before reading what is new, and `answer` after it."""
    return (folder / "flush").exists()


def answer(folder: Path) -> None:
    """All has been kept."""
    (folder / "flush").unlink(missing_ok=True)
