"""A pod that must stop asks its run for a checkpoint, through a file in the run folder.

The pod writes `.checkpoint-requested` and waits. The controller, after the step it is in, saves a checkpoint whatever
`ckpt.save_steps` says, and removes the file. A run that lives keeps touching `.running`; nobody waits for a dead one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REQUEST = ".checkpoint-requested"
RUNNING = ".running"
STALE_S = 60.0
"""A run that has not touched its file for this long has ended without removing it."""


def ask(
    run: Path,
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Ask for a checkpoint and wait for it; True when it was saved, False when nothing runs or the time is over."""
    request = run / REQUEST
    deadline = clock() + timeout_s
    if not (run / RUNNING).exists():
        return False
    request.touch()
    while clock() < deadline:
        if not request.exists():
            return True
        if not _alive(run):
            break
        sleep(1.0)
    request.unlink(missing_ok=True)
    return False


def _alive(run: Path) -> bool:
    """Whether the run touched its file lately. Both times are the file system's, so clocks of pods do not matter."""
    now = run / f"{REQUEST}.now"
    try:
        now.touch()
        fresh = now.stat().st_mtime - (run / RUNNING).stat().st_mtime < STALE_S
        now.unlink(missing_ok=True)
    except FileNotFoundError:
        return False
    return fresh


@contextmanager
def answered(run: Path, checkpoints: Any) -> Iterator[None]:
    """While a step saves: save if someone asks, whatever `checkpoints.save_steps` is, and answer when it is done."""
    request = run / REQUEST
    if not request.exists():
        yield
        return
    usual, checkpoints.save_steps = checkpoints.save_steps, 1
    try:
        yield
    finally:
        checkpoints.save_steps = usual
    request.unlink(missing_ok=True)
