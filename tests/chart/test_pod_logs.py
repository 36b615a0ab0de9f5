"""What a Ray pod's shell does for its logs, run by bash as both backends have it run."""

import contextlib
import os
import subprocess

import pytest

from helm.engine import ci_values, merged, render
from tests.chart.test_backends import templates
from tests.chart.test_messages import one_problem
from tests.cluster.api import until
from tests.cluster.rayjob import behind
from tests.patience import seconds

STORAGE = {"storage": {"checkpoints": {"existingClaim": "shared"}}}


def container(backend, changes=None):
    made = render(merged(merged(ci_values("statefulset"), {"backend": backend}), changes or {}))
    return templates(made)["head"][0]["spec"]["containers"][0]


def line_of(backend, changes=None):
    """The text that bash gets in the head's pod."""
    found = container(backend, changes)
    if backend == "statefulset":
        return found["args"][0]
    return behind(found, "ulimit -n 64; ray start --head --block")  # how KubeRay makes it of the pod template


@pytest.fixture
def pod(tmp_path):
    """Runs a text in a shell whose `ray` and `python` say that they were called, and with what."""
    programs = {
        "ray": f'echo "ray pid=$$" > {tmp_path}/started',
        # the follower lives on when Ray has started, and nobody waits for it; python is called for the caches too
        "python": f'case "$*" in *.pod_logs*) echo "$@" > {tmp_path}/followed; exec sleep 5 ;; esac',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)

    def run(text):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "POD_IP": "192.0.2.1"}
        process = subprocess.Popen(
            ["/bin/bash", "-c", text], env=environment, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            code = process.wait(timeout=seconds(20))
            (tmp_path / "pid").write_text(str(process.pid), encoding="utf-8")
            if (tmp_path / "python").exists():
                until("the follower's start", lambda: (tmp_path / "followed").stat().st_size, 20, 0.01)
            return code
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)

    return tmp_path, run


@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
def test_logs_are_followed_and_ray_takes_the_place_of_the_shell(backend, pod):
    folder, run = pod
    changes = merged(STORAGE, {"job": {"runName": "run-7", "logLimit": "1Gi"}})
    assert run(line_of(backend, changes)) == 0
    followed = (folder / "followed").read_text(encoding="utf-8")
    assert followed == (
        "-m openrlhf_mtp.cluster.pod_logs --keep /workspace/runs/run-7/logs --limit-bytes 1073741824\n"
    )
    # so that Ray gets the pod's signals, and its exit code is the pod's
    assert (folder / "started").read_text() == f"ray pid={(folder / 'pid').read_text()}\n"


@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
def test_a_follower_that_cannot_start_does_not_keep_ray_from_it(backend, pod):
    folder, run = pod
    (folder / "python").unlink()
    (folder / "python").symlink_to(folder / "nowhere")
    assert run(line_of(backend).replace("(python -m", "(./no-such-python -m")) == 0
    assert (folder / "started").exists()


@pytest.mark.parametrize(
    "changes", [{"storage": {"checkpoints": None}}, merged(STORAGE, {"job": {"logLimit": ""}})]
)
def test_nothing_is_kept_without_a_volume_or_with_a_limit_of_nothing(changes):
    assert "--keep" not in line_of("rayjob", changes)
    assert "openrlhf_mtp.cluster.pod_logs" in line_of("rayjob", changes)


@pytest.mark.parametrize("limit", ["1", "15Mi"])
def test_a_limit_in_which_no_traceback_has_room_is_refused(limit):
    values = merged(ci_values("statefulset"), {"job": {"logLimit": limit}})
    assert one_problem(values) == (
        f"job.logLimit: got {limit}, expected 16Mi or more, because a file gets a sixteenth of it and a traceback must "
        "fit; empty keeps no logs"
    )


def test_the_notes_say_where_logs_are():
    def notes(changes):
        made = render(merged(ci_values("statefulset"), merged(changes, {"job": {"runName": "r"}})))
        return made.files["openrlhf-mtp/templates/NOTES.txt"]

    kept = "/workspace/runs/r/logs/POD    # all logs of every pod, also of those that have gone (256Mi of each at most)"
    assert kept in notes(STORAGE)
    assert "logs POD -c ray" in notes(STORAGE)
    none = notes(merged(STORAGE, {"job": {"logLimit": ""}}))
    assert "/logs/POD" not in none
    assert "job.logLimit is empty: logs end with their pods" in none
