"""A Ray job that ends itself as stopped.

Ray calls a job STOPPED that it was asked to stop, whatever its exit code; KubeRay calls every job Complete that has not
FAILED, and repeats none that is (`rayjob_controller.go`, 1.6.2 and 1.7.0).
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment: what Ray gives a job's driver, its id in the metadata."""
WAIT_S = 60.0
"""Ray tells a job within a second that it is to stop."""


class Jobs(Protocol):
    """The part of Ray's JobSubmissionClient that is used here."""

    def stop_job(self, job_id: str) -> bool:
        """End it; does not wait for the end."""


def own_id() -> str | None:
    """The id under which this process's Ray job was submitted; None outside one."""
    try:
        found: Any = json.loads(os.environ[CONFIG])["metadata"]["job_submission_id"]
    except (KeyError, ValueError, TypeError):
        return None
    return found if isinstance(found, str) else None


def stop_own_job(address: str, connect: Callable[[str], Jobs] | None = None, wait_s: float = WAIT_S) -> bool:
    """Ask Ray to stop this process's job and wait until it does so, by SIGTERM to every process of the job.

    Whoever calls it must end soon after: until the job's last process has, Ray waits for RAY_JOB_STOP_WAIT_TIME_S.

    Args:
        address: Ray's dashboard, http://HOST:PORT.
        connect: to the jobs there; default: Ray's client.
        wait_s: how long Ray may take.

    Returns:
        Whether Ray has. If not, the job ends with its exit code.
    """
    job = own_id()
    if job is None:
        print(f"this Ray job cannot be stopped: {CONFIG} does not say which it is", flush=True)
        return False
    told = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        told.set()

    usual = signal.signal(signal.SIGTERM, note)
    try:
        asked = (connect or _client)(address).stop_job(job)
        return asked and told.wait(wait_s)
    except Exception as problem:  # Ray's client raises what it likes; the run's end must not hang on it
        print(f"this Ray job could not be stopped: {type(problem).__name__}: {problem}", flush=True)
        return False
    finally:
        signal.signal(signal.SIGTERM, usual)


def _client(address: str) -> Jobs:
    # the client prefers RAY_ADDRESS, which a driver has, to what it is given, and this to both; a token is there too
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    from ray.job_submission import JobSubmissionClient

    client: Jobs = JobSubmissionClient(address)
    return client
