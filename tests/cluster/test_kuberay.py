"""The `rayjob` backend on a real API server, with an EMULATION of KubeRay's operator (tests/cluster/kuberay.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helm.engine import merged
from openrlhf_mtp.runlog.checkpoint_request import STEPPING
from tests.cluster.api import until
from tests.cluster.installed import NAMESPACE, Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.runs import STEPS, long_values, reached, rows, steps, tiny_job, values, volume

RAYJOB: dict[str, Any] = {"backend": "rayjob"}


@pytest.fixture(scope="module")
def emulation(cluster: Cluster) -> Iterator[KubeRay]:
    """An operator that watches the namespace."""
    with KubeRay(cluster.plane.api, NAMESPACE) as operator:
        yield operator
        for problem in sorted(set(operator.problems)):
            print("operator:", problem)


def state(cluster: Cluster, run: str, timeout_s: float) -> str:
    """How a RayJob ended."""

    def ended() -> str:
        made = cluster.plane.api.get("RayJob", NAMESPACE, run) or {}
        found = str(made.get("status", {}).get("jobDeploymentStatus", ""))
        return found if found in ("Complete", "Failed") else ""

    result: str = until(f"the end of RayJob {run}", ended, timeout_s, 1.0)
    return result


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("emulation")
def test_a_rayjob_runs_to_its_end_and_gives_its_pods_back(cluster: Cluster, assets: Path) -> None:
    folder = volume(cluster, assets, "operator")
    with cluster.release("operator", values(cluster, RAYJOB)) as run:
        assert state(cluster, run, 700) == "Complete", cluster.kubelet.log_of(run)
        log = cluster.kubelet.log_of(f"{run}-1-")
        assert "preflight: network one broadcast reached all pods" in log
        until("released pods", lambda: not ray_pods(cluster, run), 120)
    assert steps(folder) == [0, 1, 2, 3]
    cluster.finish("operator")


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("emulation")
def test_a_lost_trainer_costs_an_attempt_but_no_saved_step(cluster: Cluster, assets: Path) -> None:
    folder = volume(cluster, assets, "again")
    with cluster.release("again", merged(long_values(cluster), RAYJOB)) as run:
        until("three steps", lambda: reached(folder, 3), 600, 0.2)
        before = rows(folder)
        cluster.kubelet.kill(f"{run}-1-trainer-0")
        assert state(cluster, run, 900) == "Complete", cluster.kubelet.log_of(f"{run}-2-")
        made = cluster.plane.api.get("RayJob", NAMESPACE, run) or {}
        assert made["status"]["failed"] == 1
    assert steps(folder) == [0, *range(1, STEPS + 1)]
    assert rows(folder)[:3] == before[:3]  # up to the checkpoint nothing was taken again
    cluster.finish("again")


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("emulation")
def test_an_uninstall_leaves_a_checkpoint_of_the_step_that_was_going_on(
    cluster: Cluster, assets: Path
) -> None:
    folder = volume(cluster, assets, "removed")
    # it would never save by itself, nor end
    endless = {"job": {"config": tiny_job({"train": {"num_episodes": 1000}}), "gracePeriodSeconds": 120}}
    with cluster.release("removed", merged(values(cluster, endless), RAYJOB)) as run:
        until("a second step", lambda: reached(folder, 2), 600, 0.2)
        assert not list(folder.glob("*/checkpoints/_actor/global_step*"))
    # KubeRay has Ray stop the job before the pods are told to stop: neither may cut the step short
    until("the pods gone", lambda: not cluster.pods_of(run), 180)
    assert list(folder.glob("*/checkpoints/_actor/global_step*"))
    # `.running` may stay, of a shell that went with its pod, and gets old; a pod that asks now must not wait
    assert not list(folder.glob(f"*/{STEPPING}"))
    cluster.finish("removed")


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("emulation")
def test_pods_that_never_come_cost_every_attempt_its_deadline(cluster: Cluster, assets: Path) -> None:
    volume(cluster, assets, "absent")
    short = {"job": {"startupDeadlineSeconds": 60}, "rollout": {"nodeSelector": {"pool": "no-such"}}}
    with cluster.release("absent", merged(values(cluster, short), RAYJOB)) as run:
        assert state(cluster, run, 500) == "Failed"
        made = cluster.plane.api.get("RayJob", NAMESPACE, run) or {}
        assert (made["status"]["reason"], made["status"]["failed"]) == ("PreRunningDeadlineExceeded", 2)
        assert "preflight" not in cluster.kubelet.log_of(
            run
        )  # the job is not submitted before all pods are ready
    cluster.finish("absent")


def ray_pods(cluster: Cluster, run: str) -> list[str]:
    """The RayJob's pods of Ray that are still listed."""
    return [
        name for name in cluster.pods_of(run) if "-head" in name or "-trainer-" in name or "-rollout-" in name
    ]
