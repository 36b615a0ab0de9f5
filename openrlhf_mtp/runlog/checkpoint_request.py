"""A pod that must stop asks its run for a checkpoint, through a file in the run folder.

The pod writes `.checkpoint-requested` and waits. The controller, after the step it is in, saves a checkpoint whatever
`ckpt.save_steps` says, and removes the file. Nobody waits in vain: a run that lives keeps touching `.running`, and
`.stepping` exists while a step is running that will answer.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

REQUEST = ".checkpoint-requested"
RUNNING = ".running"
STEPPING = ".stepping"
STALE_S = 60.0
"""A run that has not touched its file for this long has ended without removing it."""
WAIT = "OPENRLHF_MTP_CHECKPOINT_WAIT_S"
"""Environment: how long a driver that gets SIGTERM waits for the checkpoint. The chart sets it."""


class CheckpointSettings(Protocol):
    """The one setting of OpenRLHF's `args.ckpt` that is used here."""

    save_steps: int


def ask(
    run: Path,
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Ask for a checkpoint and wait for it; True when it was saved, False when nothing runs or the time is over.

    The caller is about to exit, and the run ends with it, so only one checkpoint is ever requested.
    """
    request = run / REQUEST
    deadline = clock() + timeout_s
    if not _answers(run):
        return False
    request.touch()
    while clock() < deadline:
        if not request.exists():
            (run / STEPPING).unlink(missing_ok=True)
            return True
        if not _answers(run):
            break
        sleep(1.0)
    request.unlink(missing_ok=True)
    return False


def _answers(run: Path) -> bool:
    """Whether the run takes steps and touched its file lately. Both times are the file system's, not a pod's."""
    if not ((run / STEPPING).exists() and (run / RUNNING).exists()):
        return False
    now = run / f"{REQUEST}.now"
    now.touch()
    try:
        return now.stat().st_mtime - (run / RUNNING).stat().st_mtime < STALE_S
    except FileNotFoundError:  # it ended just now, or another pod that asks was faster
        return (run / RUNNING).exists()
    finally:
        now.unlink(missing_ok=True)


def accept(run: Path) -> None:
    """Declare that each step answers from now on: models and engines are up."""
    (run / STEPPING).touch()


@contextmanager
def request_on_sigterm(run: Path) -> Iterator[None]:
    """SIGTERM asks for a checkpoint first, then does what it did before; the second one does so at once. In the end no
    step answers any more, however the run ended.

    Ray ends a job with SIGTERM to its driver, which knows of no step: the controller is another process. KubeRay has
    Ray do that when a RayJob is deleted, before the pods are told to stop.
    """
    usual = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, usual)
        ask(run, float(os.environ.get(WAIT, "0")))
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)
        (run / STEPPING).unlink(missing_ok=True)


@contextmanager
def saving_now(checkpoints: CheckpointSettings) -> Iterator[None]:
    """Within this context a step saves a checkpoint, whatever `checkpoints.save_steps` is."""
    usual, checkpoints.save_steps = checkpoints.save_steps, 1
    try:
        yield
    finally:
        checkpoints.save_steps = usual


@contextmanager
def serve_request(run: Path, checkpoints: CheckpointSettings) -> Iterator[None]:
    """While a step saves: save if someone asks, and answer when it is done."""
    request = run / REQUEST
    if not request.exists():
        yield
        return
    with saving_now(checkpoints):
        yield
    request.unlink(missing_ok=True)
