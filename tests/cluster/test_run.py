"""The `statefulset` backend on a real API server: a tiny job with a DeepSpeed trainer pod and a vLLM rollout pod."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.engine import ReleaseError, job_values, merged
from tests.cluster.api import until
from tests.cluster.control_plane import ROOT
from tests.cluster.installed import NAMESPACE, Cluster
from tests.engine import rl_jobs

POD = {"cpu": 1, "memory": "8Gi", "shmSize": "1Gi", "ephemeralStorage": "1Gi"}
SMALL: dict[str, Any] = {
    "backend": "statefulset",
    "accelerator": {"type": "cpu"},
    "pods": {
        **POD,
        # compiled once on this machine, not once a pod
        "extraEnv": [
            {"name": "TORCH_EXTENSIONS_DIR", "value": "/cache"},
            {"name": "OMP_NUM_THREADS", "value": "1"},
        ],
        "extraVolumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    },
    "placement": {"timeoutSeconds": 60},
    "preflight": {"broadcastTimeoutSeconds": 120},
    "job": {
        "retries": 1,
        "releaseAfterSeconds": 1,
        "gracePeriodSeconds": 30,
        "startupDeadlineSeconds": 300,
        "deadlineSeconds": 1200,
    },
    "storage": {"checkpoints": {"create": True, "size": "1Gi", "accessModes": ["ReadWriteOnce"]}},
}
ASSETS = "/workspace/runs/assets"


def tiny_job(**changes: Any) -> str:
    """The job file of tests/engine with its paths in the shared volume."""
    job: dict[str, Any] = json.loads(json.dumps(rl_jobs.JOB))
    job["actor"]["model_name_or_path"] = f"{ASSETS}/policy"
    job["data"]["prompt_dataset"] = f"{ASSETS}/train.jsonl"
    job["eval"]["dataset"] = f"{ASSETS}/eval.jsonl"
    job["reward"]["remote_url"] = f"{ASSETS}/reward.py"
    job["mtp"]["head"] = f"{ASSETS}/policy/mtp"
    return yaml.safe_dump(merged(job, changes))


def prepared(cluster: Cluster, assets: Path, name: str) -> Path:
    """A volume with the assets, writable by the pods' user."""
    volume = cluster.volume(name)
    shutil.copytree(assets, volume / "assets")
    for path in (volume / "assets").rglob("*"):
        shutil.chown(path, 1000, 1000)
    shutil.chown(volume / "assets", 1000, 1000)
    return volume


def values(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    """Values of a small run."""
    cache = cluster.folder / "torch-extensions"
    if not cache.exists():
        made = ROOT / ".cache" / "torch-extensions"
        shutil.copytree(made, cache) if made.exists() else cache.mkdir()
        for path in (cache, *cache.rglob("*")):
            shutil.chown(path, 1000, 1000)
    volume = {"pods": {"extraVolumes": [{"name": "cache", "hostPath": {"path": str(cache)}}]}}
    return merged(merged(job_values(tiny_job()), merged(SMALL, volume)), changes)


def rows(volume: Path) -> list[dict[str, float]]:
    """The metrics of the only run in a volume."""
    (path,) = volume.glob("*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.timeout(900)
def test_a_run_from_install_to_uninstall(cluster: Cluster, assets: Path) -> None:
    volume = prepared(cluster, assets, "whole")
    started = time.monotonic()
    with cluster.release("whole", values(cluster)) as run:
        installed = time.monotonic()
        assert cluster.job_ended(f"{run}-submitter", 700) == "Complete", cluster.kubelet.log_of(
            f"{run}-submitter"
        )
        ended = time.monotonic()
        log = cluster.kubelet.log_of(f"{run}-submitter")
        assert "preflight: network one broadcast reached all pods" in log
        assert "attempt 1 of 2: SUCCEEDED" in log
        # the pods were given back before the release is removed
        until("released pods", lambda: not [p for p in pods_of(cluster, run) if "submitter" not in p], 60)
    steps = [row for row in rows(volume) if "policy/reward" in row]
    assert len(steps) == 3
    assert all(row["spec/mean_acceptance_length"] >= 1 for row in steps)
    (folder,) = (path.parent for path in volume.glob("*/summary.json"))
    assert (folder / "report.html").exists()
    kept = ["PersistentVolumeClaim whole-checkpoints"]
    until("nothing left but the claim", lambda: cluster.left_of("whole") == kept, 90)
    print(f"install {installed - started:.0f} s, job {ended - installed:.0f} s")
    cluster.plane.api.delete("PersistentVolumeClaim", NAMESPACE, "whole-checkpoints")


def pods_of(cluster: Cluster, run: str) -> list[str]:
    """Names of a run's pods."""
    listed = cluster.plane.api.list("Pod", NAMESPACE)
    return [
        p["metadata"]["name"] for p in listed if p["metadata"]["labels"].get("openrlhf-mtp.io/run") == run
    ]


@pytest.mark.timeout(300)
def test_a_job_file_with_an_error_fails_before_any_pod_of_the_run(cluster: Cluster) -> None:
    without_volume = merged(SMALL, {"storage": {"checkpoints": {"create": False}}})
    wrong = merged(job_values(tiny_job(mtp={"depth": 2})), without_volume)
    wrong["pods"]["extraVolumeMounts"] = []
    started = time.monotonic()
    with pytest.raises(ReleaseError), cluster.release("wrong", wrong):
        pass
    assert time.monotonic() - started < 120
    assert "mtp.depth" in cluster.kubelet.log_of("wrong")
    assert [name for name in cluster.kubelet.logs if name.startswith("wrong") and "-check-" not in name] == []
    assert cluster.left_of("wrong") == []
