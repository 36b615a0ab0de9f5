"""Faults on the local cluster, each with the end that a user is promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chart.engine import merged
from tests.cluster.api import until
from tests.cluster.installed import NAMESPACE, Cluster
from tests.cluster.test_run import prepared, rows, tiny_job, values

# A run of more steps, so that there is a middle to break it in; checkpoints as they come.
LONG: dict[str, Any] = {"train": {"num_episodes": 3}, "ckpt": {"save_steps": 2}}


@pytest.fixture
def long_run(cluster: Cluster, assets: Path) -> dict[str, Any]:
    """Values of a run of nine steps that saves every second one."""
    return merged(values(cluster), {"job": {"config": tiny_job(**LONG)}})


def steps(volume: Path) -> list[int]:
    """Steps logged so far."""
    return [int(row["step"]) for row in rows(volume)] if list(volume.glob("*/metrics.jsonl")) else []


def finish(cluster: Cluster, release: str, claim: bool = True) -> None:
    """Nothing may be left but the claim, which is removed here."""
    kept = [f"PersistentVolumeClaim {release}-checkpoints"] if claim else []
    until("nothing left but the claim", lambda: cluster.left_of(release) == kept, 120)
    if claim:
        cluster.plane.api.delete("PersistentVolumeClaim", NAMESPACE, f"{release}-checkpoints")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("pod", ["trainer-0", "rollout-0", "head-0"])
def test_a_pod_that_is_lost_costs_an_attempt_and_no_step_before_the_checkpoint(
    cluster: Cluster, assets: Path, long_run: dict[str, Any], pod: str
) -> None:
    name = f"lost-{pod.removesuffix('-0')}"
    volume = prepared(cluster, assets, name)
    with cluster.release(name, long_run) as run:
        until("three steps", lambda: max(steps(volume), default=0) >= 3, 500, 0.2)
        cluster.kubelet.kill(f"{run}-{pod}")
        assert cluster.job_ended(f"{run}-submitter", 600) == "Complete", cluster.kubelet.log_of(
            f"{run}-submitter"
        )
        log = cluster.kubelet.log_of(f"{run}-submitter")
        assert "starting again in a fresh Ray cluster" in log
        assert "attempt 2 of 2: SUCCEEDED" in log
    # every step is there once: the second attempt went on where the checkpoint was
    assert steps(volume) == [0, *range(1, 10)]
    finish(cluster, name)


@pytest.mark.timeout(900)
def test_a_submitter_that_is_killed_is_replaced_by_one_that_follows_the_same_job(
    cluster: Cluster, assets: Path, long_run: dict[str, Any]
) -> None:
    volume = prepared(cluster, assets, "submitter")
    with cluster.release("submitter", long_run) as run:
        until("a first step", lambda: max(steps(volume), default=0) >= 1, 400, 0.2)
        killed = next(pod for _, pod in cluster.kubelet.pods if pod.startswith(f"{run}-submitter"))
        cluster.kubelet.kill(killed)
        assert cluster.job_ended(f"{run}-submitter", 500) == "Complete"
        second = cluster.kubelet.log_of(f"{run}-submitter").rpartition("submitter: started")[2]
        assert "attempt 1 of 2: SUCCEEDED" in second
    assert steps(volume) == [0, *range(1, 10)]
    finish(cluster, "submitter")


@pytest.mark.timeout(600)
def test_a_rollout_pod_that_never_comes_ends_the_run_within_its_deadline(
    cluster: Cluster, assets: Path
) -> None:
    prepared(cluster, assets, "never")
    short = {"job": {"startupDeadlineSeconds": 60}, "rollout": {"nodeSelector": {"pool": "no-such"}}}
    with cluster.release("never", merged(values(cluster), short)) as run:
        assert cluster.job_ended(f"{run}-submitter", 400) == "Failed"
        log = cluster.kubelet.log_of(f"{run}-submitter")
        assert "role rollout: needed 1 pod(s) with 1 GPUs in all, present 0 with 0" in log
        assert "attempt 1 of 2: FAILED" in log
        assert "fresh Ray cluster" not in log
    finish(cluster, "never")


@pytest.mark.timeout(900)
def test_a_pod_that_is_told_to_stop_gets_a_checkpoint_first(
    cluster: Cluster, assets: Path, long_run: dict[str, Any]
) -> None:
    volume = prepared(cluster, assets, "drain")
    never_by_itself = {"job": {"config": tiny_job(train={"num_episodes": 3}), "gracePeriodSeconds": 120}}
    with cluster.release("drain", merged(long_run, never_by_itself)) as run:
        until("a second step", lambda: max(steps(volume), default=0) >= 2, 500, 0.2)
        cluster.plane.api.delete("Pod", NAMESPACE, f"{run}-trainer-0")
        until("a checkpoint", lambda: list(volume.glob("*/checkpoints/_actor/global_step*")), 120)
        assert cluster.job_ended(f"{run}-submitter", 600) == "Complete", cluster.kubelet.log_of(
            f"{run}-submitter"
        )
    assert steps(volume) == [0, *range(1, 10)]
    finish(cluster, "drain")
