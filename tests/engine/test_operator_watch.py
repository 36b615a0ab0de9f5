"""Who asks Ray's dashboard for a job is in its log, as the watch over KubeRay's operator reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrlhf_mtp.cluster.operator_watch import DashboardLog, Watch, ask
from tests.patience import seconds

pytestmark = pytest.mark.alone

GO = "Go-http-client/1.1"
"""What Go's net/http says of itself, and with it KubeRay's operator, which sets nothing else."""


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, Path]]:
    """A head with its dashboard: the address, and the log."""
    import tempfile

    # Ray gives each module of the dashboard 30 s to start, which a slow machine exceeds
    os.environ["RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT"] = str(seconds(60))
    import ray

    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        context = ray.init(
            num_cpus=1,
            num_gpus=0,
            include_dashboard=True,
            object_store_memory=80 << 20,
            log_to_driver=False,
            _temp_dir=folder,
        )
        try:
            log = Path(folder) / "session_latest" / "logs" / "dashboard.log"
            yield f"http://{context.address_info['webui_url']}", log
        finally:
            ray.shutdown()
            del os.environ["RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT"]


def test_the_submitter_is_no_operator_a_silent_one_is_said_and_one_that_asks_is_heard(
    head: tuple[str, Path],
) -> None:
    from ray.job_submission import JobSubmissionClient

    address, log = head
    said: list[str] = []
    watch = Watch(DashboardLog(log), said.append, limit_s=0.5, ask=lambda agent: ask(agent, address))

    def look_until(count: int) -> None:
        end = time.monotonic() + seconds(30)
        while len(said) < count and time.monotonic() < end:
            watch.look()
            time.sleep(0.2)

    JobSubmissionClient(address).list_jobs()
    look_until(1)
    assert len(said) == 1
    assert "has not asked Ray for this run's job" in said[0]
    ask(GO, address, "/api/jobs/run1-abcde")  # no such job yet: refused, and logged all the same
    look_until(2)
    assert len(said) == 2
    assert "asks Ray for this run's job again" in said[1]
