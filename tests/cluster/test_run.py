"""The `statefulset` backend on a real API server: a tiny job with a DeepSpeed trainer pod and a vLLM rollout pod."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from helm.engine import ReleaseError, job_values, merged
from tests.cluster.api import until
from tests.cluster.installed import NAMESPACE, Cluster
from tests.cluster.runs import SMALL, kept_output, rows, tiny_job, values, volume


@pytest.mark.timeout(900)
def test_a_run_from_install_to_uninstall(cluster: Cluster, assets: Path) -> None:
    folder = volume(cluster, assets, "whole")
    started = time.monotonic()
    with cluster.release("whole", values(cluster)) as run:
        installed = time.monotonic()
        ready = until("all pods ready", lambda: ready_pods(cluster, run), 300)
        assert ready == [f"{run}-head-0", f"{run}-rollout-0", f"{run}-trainer-0"]
        formed = time.monotonic()
        end = cluster.job_ended(f"{run}-submitter", 700)
        ended = time.monotonic()
        log = cluster.kubelet.log_of(f"{run}-submitter")
        assert end == "Complete", log
        assert "preflight: pods    1 trainer x 1 GPUs, 1 rollout x 1 GPUs" in log
        assert "preflight: network one broadcast reached all pods" in log
        assert "attempt 1 of 2: SUCCEEDED" in log
        # the pods were given back before the release is removed
        until("released pods", lambda: not [p for p in cluster.pods_of(run) if "submitter" not in p], 60)
    # what workers print is in the output of their own pod, and outlives it
    loaded = "Loading custom `reward_func(queries, prompts, labels)`"
    (printed,) = [line for line in cluster.kubelet.log_of(f"{run}-rollout-0").splitlines() if loaded in line]
    assert printed.startswith("[MTPRolloutActor pid=")
    assert loaded not in cluster.kubelet.log_of(f"{run}-trainer-0")
    assert loaded in kept_output(folder, f"{run}-rollout-0")
    for pod in ready:
        assert list(folder.glob(f"*/logs/{pod}/session_*/raylet.out")), pod
    steps = [row for row in rows(folder) if "policy/reward" in row]
    assert len(steps) == 3
    assert all(row["spec/mean_acceptance_length"] >= 1 for row in steps)
    assert all(row["time/sync_s"] > 0 for row in steps)
    (summary,) = folder.glob("*/summary.json")
    assert (summary.parent / "report.html").exists()
    cluster.finish("whole")
    print(f"install {installed - started:.0f} s, pods ready {formed - installed:.0f} s later, ", end="")
    print(f"job ended {ended - installed:.0f} s after the install")


def ready_pods(cluster: Cluster, run: str) -> list[str]:
    """The run's Ray pods once all three answer their readiness probe."""
    ready = [
        pod["metadata"]["name"]
        for pod in cluster.owned(run.rpartition("-")[0], "Pod")
        if pod["metadata"]["labels"]["openrlhf-mtp.io/role"] in ("head", "trainer", "rollout")
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    ]
    return sorted(ready) if len(ready) == 3 else []


@pytest.mark.timeout(300)
def test_a_job_file_with_an_error_fails_before_any_pod_of_the_run(cluster: Cluster) -> None:
    wrong = merged(job_values(tiny_job({"mtp": {"depth": 2}})), SMALL)
    wrong["pods"]["extraVolumeMounts"] = []
    started = time.monotonic()
    with pytest.raises(ReleaseError, match="failed pre-install"), cluster.release("wrong", wrong):
        pass
    took = time.monotonic() - started
    assert took < 120
    assert "mtp.depth" in cluster.kubelet.log_of("wrong")
    assert [name for name in cluster.kubelet.logs if name.startswith("wrong") and "-check" not in name] == []
    # what says why is kept, and nothing else
    assert cluster.left_of("wrong") == ["Pod wrong-check"]
    cluster.plane.api.delete("Pod", NAMESPACE, "wrong-check")
    until("nothing left", lambda: cluster.left_of("wrong") == [], 60)
    print(f"refused after {took:.0f} s")
