"""A run that has failed for good ends as a job that was stopped, on a real Ray: its script, its output, its status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helm.engine import ROOT, ci_values, merged, render
from openrlhf_mtp.cluster.attempts import FAILED, NONE_LEFT
from tests.patience import seconds
from tests.processes import free_port

pytestmark = pytest.mark.alone

STAND_IN = """#!/bin/bash
[[ "$*" == *attempts* ]] && exec {python} "$@"
case "$*" in
  train*) echo '{{"steps": 3}}' > "$RUN/summary.json"; exit "$(cat {folder}/code)" ;;
  *exporter*|*operator_watch*) exec sleep 600 ;;
esac
"""
"""For `python` and `openrlhf-mtp`: only the count of attempts is the real one."""


TOKEN = "a" * 64


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of the head and its clients: whoever asks needs a token, and a job has 600 s to stop, as in the chart."""
    return {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_JOB_STOP_WAIT_TIME_S": "600",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(seconds(90))),
        "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": str(seconds(60)),
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="module")
def jobs(environment: dict[str, str]) -> Iterator[Any]:
    """A head that takes jobs, as a process of its own: Ray knows of a token from its first use in a process on."""
    from ray.job_submission import JobSubmissionClient

    port, dashboard = free_port(), free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += [
        f"--dashboard-port={dashboard}",
        "--num-cpus=1",
        "--num-gpus=0",
        f"--object-store-memory={80 << 20}",
    ]
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        head = subprocess.Popen(
            [*command, f"--temp-dir={folder}"], env=environment, stdout=subprocess.DEVNULL
        )
        try:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            end = time.monotonic() + seconds(90)
            while True:
                try:
                    client = JobSubmissionClient(f"http://127.0.0.1:{dashboard}", headers=headers)
                    break
                except (ConnectionError, RuntimeError):
                    assert head.poll() is None, "the head has ended"
                    assert time.monotonic() < end
                    time.sleep(0.5)
            yield client
        finally:
            head.terminate()
            head.wait(timeout=seconds(30))


@pytest.fixture
def script(jobs: Any, tmp_path: Path) -> str:
    """The rayjob backend's run.sh with one retry, as the entrypoint of a job; a file says how training ends."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "workspace").mkdir()
    for name in ("python", "openrlhf-mtp"):
        command = tmp_path / "bin" / name
        command.write_text(STAND_IN.format(python=sys.executable, folder=tmp_path), encoding="utf-8")
        command.chmod(0o755)
    values = merged(ci_values("cpu-smoke"), {"backend": "rayjob", "job": {"retries": 1}})
    (text,) = [
        made["data"]["run.sh"] for made in render(values).of_kind("ConfigMap") if "run.sh" in made["data"]
    ]
    here = text.replace("/workspace", f"{tmp_path}/workspace").replace(
        "http://127.0.0.1:8265", jobs.get_address()
    )
    (tmp_path / "run.sh").write_text(here, encoding="utf-8")
    return f"PATH={tmp_path}/bin:{os.defpath} bash {tmp_path}/run.sh"


def ended(jobs: Any, job: str) -> Any:
    """What Ray says of a job at its end."""
    end = time.monotonic() + seconds(90)
    while not (info := jobs.get_job_info(job)).status.is_terminal():
        assert time.monotonic() < end, jobs.get_job_logs(job)
        time.sleep(0.1)
    print(info.status, info.message, jobs.get_job_logs(job))
    return info


def test_a_hopeless_run_is_stopped_and_its_submitter_ends_well_with_the_reason(
    jobs: Any, environment: dict[str, str], script: str, tmp_path: Path
) -> None:
    (tmp_path / "code").write_text("1", encoding="utf-8")
    first = ended(jobs, jobs.submit_job(entrypoint=script))
    assert (first.status, first.driver_exit_code) == ("FAILED", 1)
    job = jobs.submit_job(entrypoint=script)
    assert ended(jobs, job).status == "STOPPED"
    # what KubeRay's submitter runs: a failure of it would be one of the attempt, and repeated
    follow = ["ray", "job", "logs", "--address", jobs.get_address(), "--follow", job]
    followed = subprocess.run(
        follow, env=environment, capture_output=True, text=True, timeout=seconds(60), check=True
    )
    reason = "attempts: the run has failed and is not started again: 2 failed and no checkpoint yet, and job.retries=1"
    assert reason in followed.stdout
    (told,) = (tmp_path / "workspace").rglob(FAILED)
    assert json.loads(told.read_text(encoding="utf-8"))["exit_code"] == NONE_LEFT
    assert not list((tmp_path / "workspace").rglob(".running"))


def test_an_error_of_the_users_is_stopped_at_once(jobs: Any, script: str, tmp_path: Path) -> None:
    (tmp_path / "code").write_text("2", encoding="utf-8")
    job = jobs.submit_job(entrypoint=script)
    assert ended(jobs, job).status == "STOPPED"
    last = jobs.get_job_logs(job).splitlines()[-1]
    assert last.startswith("attempts: the run has failed and is not started again: exit code 2 says")


def test_a_good_end_stays_one(jobs: Any, script: str, tmp_path: Path) -> None:
    (tmp_path / "code").write_text("0", encoding="utf-8")
    job = jobs.submit_job(entrypoint=script)
    assert ended(jobs, job).status == "SUCCEEDED"
    assert jobs.get_job_logs(job).splitlines()[-1] == 'summary: {"steps": 3}'
