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

pytestmark = pytest.mark.alone

STAND_IN = """#!/bin/bash
[[ "$*" == *attempts* ]] && exec {python} "$@"
case "$*" in
  train*) echo '{{"steps": 3}}' > "$RUN/summary.json"; exit "$(cat {folder}/code)" ;;
  *exporter*|*operator_watch*) exec sleep 600 ;;
esac
"""
"""For `python` and `openrlhf-mtp`: only the count of attempts is the real one."""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head that takes jobs; whoever asks needs a token, and a job has 600 s to stop, as in the chart."""
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a" * 64,
        "RAY_JOB_STOP_WAIT_TIME_S": "600",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(seconds(90))),
        "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": str(seconds(60)),
        "PYTHONPATH": str(ROOT),
    }
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        for name, value in environment.items():
            patch.setenv(name, value)
        import ray
        from ray.job_submission import JobSubmissionClient

        context = ray.init(
            num_cpus=1,
            num_gpus=0,
            include_dashboard=True,
            object_store_memory=80 << 20,
            log_to_driver=False,
            _temp_dir=folder,
        )
        try:
            yield JobSubmissionClient(f"http://{context.address_info['webui_url']}")
        finally:
            ray.shutdown()


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
    jobs: Any, script: str, tmp_path: Path
) -> None:
    (tmp_path / "code").write_text("1", encoding="utf-8")
    first = ended(jobs, jobs.submit_job(entrypoint=script))
    assert (first.status, first.driver_exit_code) == ("FAILED", 1)
    job = jobs.submit_job(entrypoint=script)
    assert ended(jobs, job).status == "STOPPED"
    # what KubeRay's submitter runs: a failure of it would be one of the attempt, and repeated
    follow = ["ray", "job", "logs", "--address", jobs.get_address(), "--follow", job]
    followed = subprocess.run(follow, capture_output=True, text=True, timeout=seconds(60), check=True)
    reason = "attempts: the run has failed and is not started again: 2 failed and no checkpoint yet, and job.retries=1"
    assert (
        followed.stdout.splitlines()[-2:] == [reason, followed.stdout.splitlines()[-1]]
        or reason in followed.stdout
    )
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
