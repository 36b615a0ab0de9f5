"""How often a run is started again, in both backends and by both versions of KubeRay's rules (EMULATED)."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from helm.engine import merged
from openrlhf_mtp.cluster.attempts import ATTEMPTS, FAILED
from tests.cluster.api import until
from tests.cluster.installed import NAMESPACE, Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.runs import LONG, STEPS, long_values, reached, rows, steps, tiny_job, values, volume

BACKENDS = pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
RAYJOB: dict[str, Any] = {"backend": "rayjob"}


def operator(cluster: Cluster, backend: str = "rayjob", version: str = "1.6.2", **more: Any) -> Any:
    """An operator for as long as the test needs one."""
    return KubeRay(cluster.plane.api, NAMESPACE, version, **more) if backend == "rayjob" else nullcontext()


def status(cluster: Cluster, run: str) -> dict[str, Any]:
    """A RayJob's."""
    found: dict[str, Any] = (cluster.plane.api.get("RayJob", NAMESPACE, run) or {}).get("status", {})
    return found


def end(cluster: Cluster, backend: str, run: str, timeout_s: float) -> str:
    """How a run ended: SUCCEEDED, STOPPED or Failed of a RayJob; Complete or Failed of the submitter's Job."""
    if backend == "statefulset":
        return cluster.job_ended(f"{run}-submitter", timeout_s)

    def ended() -> str:
        told = status(cluster, run)
        state = str(told.get("jobDeploymentStatus", ""))
        return {"Complete": str(told.get("jobStatus", "")), "Failed": "Failed"}.get(state, "")

    result: str = until(f"the end of RayJob {run}", ended, timeout_s, 1.0)
    return result


def left(folder: Path, name: str) -> dict[str, Any]:
    """A file of the only run folder in a volume."""
    (path,) = folder.glob(f"*/{name}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def trainer(run: str, backend: str, attempt: int) -> str:
    """The beginning of the trainer pod's name."""
    return f"{run}-{attempt}-trainer-0" if backend == "rayjob" else f"{run}-trainer-0"


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["1.6.2", "1.7.0"])
def test_an_error_of_the_users_ends_a_rayjob_at_once(cluster: Cluster, assets: Path, version: str) -> None:
    name = f"mistake-{version.replace('.', '')}"
    folder = volume(cluster, assets, name)
    # the check before the install sees no volumes
    missing = {
        "job": {"config": tiny_job({"data": {"prompt_dataset": "/workspace/runs/assets/no-such.jsonl"}})}
    }
    with (
        operator(cluster, version=version),
        cluster.release(name, merged(values(cluster, missing), RAYJOB)) as run,
    ):
        assert end(cluster, "rayjob", run, 500) == "STOPPED", cluster.kubelet.log_of(run)
        assert status(cluster, run)["failed"] == 0
        log = cluster.kubelet.log_of(f"{run}-1-")
        assert f"preflight: operator KubeRay {version}\n" in log
        assert "attempts: the run has failed and is not started again: exit code 2 says that" in log
        assert left(folder, FAILED)["exit_code"] == 2
        until("released pods", lambda: not [one for one in cluster.pods_of(run) if "trainer" in one], 120)
    cluster.finish(name)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_an_operator_that_is_too_old_is_refused_in_words(cluster: Cluster, assets: Path) -> None:
    folder = volume(cluster, assets, "old")
    with operator(cluster, version="1.5.2"), cluster.release("old", values(cluster, RAYJOB)) as run:
        assert end(cluster, "rayjob", run, 400) == "STOPPED", cluster.kubelet.log_of(run)
        assert (
            "preflight: error: KubeRay 1.5.2 runs this job, and the chart needs 1.6"
            in cluster.kubelet.log_of(run)
        )
        assert left(folder, FAILED)["attempts"] == 1
    cluster.finish("old")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@BACKENDS
def test_a_run_that_gets_on_may_lose_more_pods_than_retries(
    cluster: Cluster, assets: Path, backend: str
) -> None:
    name = f"many-{backend}"
    folder = volume(cluster, assets, name)
    with (
        operator(cluster, backend, "1.7.0"),
        cluster.release(name, merged(long_values(cluster), {"backend": backend})) as run,
    ):
        for attempt, step in enumerate((3, 5, 7), start=1):  # each after a checkpoint of its own
            until(f"step {step}", lambda step=step: reached(folder, step), 600, 0.2)
            before = rows(folder)
            cluster.kubelet.kill(trainer(run, backend, attempt))
            saved = step - 1
            until(
                f"attempt {attempt + 1}",
                lambda attempt=attempt: left(folder, ATTEMPTS)["begun"] == attempt + 1,
                300,
            )
            told = left(folder, ATTEMPTS)
            assert (told["failed"], told["checkpoint"]) == (1, f"global_step{saved}")
        assert end(cluster, backend, run, 900) in ("SUCCEEDED", "Complete")
        log = cluster.kubelet.log_of(run)
    assert steps(folder) == [0, *range(1, STEPS + 1)]
    assert rows(folder)[: saved + 1] == before[: saved + 1]
    assert left(folder, ATTEMPTS)["over"] == "succeeded"
    if backend == "statefulset":
        assert "attempt 3 of 4: FAILED (1 failed since checkpoint global_step6)" in log
        assert "attempt 4 of 4: SUCCEEDED" in log
    cluster.finish(name)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@BACKENDS
def test_a_run_that_makes_no_progress_ends_after_its_retries(
    cluster: Cluster, assets: Path, backend: str
) -> None:
    name = f"stuck-{backend}"
    folder = volume(cluster, assets, name)
    reward = (
        "def reward_func(queries, prompts, labels, **given):\n    raise RuntimeError('the judge is away')\n"
    )
    (folder / "assets/reward.py").write_text(reward, encoding="utf-8")
    with (
        operator(cluster, backend),
        cluster.release(name, values(cluster, {"backend": backend, "job": {"retries": 1}})) as run,
    ):
        assert end(cluster, backend, run, 900) == ("STOPPED" if backend == "rayjob" else "Failed")
        log = cluster.kubelet.log_of(run)
        assert (
            "the run has failed and is not started again: 2 failed and no checkpoint yet, and job.retries=1"
            in log
        )
        told = left(folder, FAILED)
        assert (told["attempts"], told["exit_code"]) == (2, 4)
        if backend == "statefulset":
            assert "attempt 2 of 2: FAILED (2 failed and no checkpoint yet)" in log
    cluster.finish(name)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", ["1.6.2", "1.7.0"])
def test_a_head_that_comes_back_continues_and_has_cost_an_attempt(
    cluster: Cluster, assets: Path, version: str
) -> None:
    name = f"head-{version.replace('.', '')}"
    folder = volume(cluster, assets, name)
    with (
        operator(cluster, version=version),
        cluster.release(name, merged(long_values(cluster), RAYJOB)) as run,
    ):
        until("three steps", lambda: reached(folder, 3), 600, 0.2)
        cluster.kubelet.kill(f"{run}-1-head")
        assert end(cluster, "rayjob", run, 900) == "SUCCEEDED", cluster.kubelet.log_of(run)
        assert (
            "attempts: attempt 1 failed (killed); 1 failed since checkpoint global_step2"
            in cluster.kubelet.log_of(run)
        )
    assert steps(folder) == [0, *range(1, STEPS + 1)]
    cluster.finish(name)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_run_that_its_operator_cannot_ask_for_ends_for_good_with_1_7(
    cluster: Cluster, assets: Path
) -> None:
    folder = volume(cluster, assets, "deaf-17")
    endless = {"job": {"config": tiny_job({"train": {"num_episodes": 1000}})}}
    with (
        operator(cluster, version="1.7.0", status_check_s=60) as kuberay,
        cluster.release("deaf-17", merged(values(cluster, endless), RAYJOB)) as run,
    ):
        until("a first step", lambda: reached(folder, 1), 600, 0.5)
        kuberay.deaf = True
        assert end(cluster, "rayjob", run, 300) == "Failed"
        told = status(cluster, run)
        assert (told["reason"], told["failed"]) == ("JobStatusCheckTimeoutExceeded", 1)
    cluster.finish("deaf-17")


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_repeated_finished_run_trains_no_more(cluster: Cluster, assets: Path) -> None:
    folder = volume(cluster, assets, "deaf-16")
    twice = merged(
        values(cluster, RAYJOB), {"job": {"config": tiny_job(LONG), "retries": 1, "maxAttempts": 2}}
    )
    with operator(cluster, version="1.6.2", deaf=True), cluster.release("deaf-16", twice) as run:
        assert end(cluster, "rayjob", run, 800) == "Failed"
        told = status(cluster, run)
        assert (told["reason"], told["failed"]) == ("JobDeploymentStatusTransitionGracePeriodExceeded", 2)
        log = cluster.kubelet.log_of(f"{run}-2-")
        assert "attempts: this run has succeeded before, in attempt 1; nothing is left to do" in log
        assert "preflight" not in log
    assert steps(folder) == [0, *range(1, STEPS + 1)]
    cluster.finish("deaf-16")
