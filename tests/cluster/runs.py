"""A tiny run on the local cluster: its job file, its values, its volume, and what it has written there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from helm.engine import job_values, merged
from tests.cluster.control_plane import ROOT
from tests.cluster.installed import Cluster
from tests.engine import rl_jobs
from tests.patience import seconds

USER = 1000
"""The pods' uid, see pods.podSecurityContext of the chart's values."""
ASSETS = "/workspace/runs/assets"
SMALL: dict[str, Any] = {
    "backend": "statefulset",
    "accelerator": {"type": "cpu"},
    "pods": {
        "cpu": 1,
        "memory": "8Gi",
        "shmSize": "1Gi",
        "ephemeralStorage": "1Gi",
        # compiled once on this machine, not once a pod
        "extraEnv": [
            {"name": "TORCH_EXTENSIONS_DIR", "value": "/cache"},
            {"name": "OMP_NUM_THREADS", "value": "1"},
        ],
        "extraVolumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    },
    "placement": {"timeoutSeconds": int(seconds(120))},
    "preflight": {"broadcastTimeoutSeconds": int(seconds(120))},
    "job": {
        "retries": 1,
        "releaseAfterSeconds": 1,
        "gracePeriodSeconds": 45,
        "startupDeadlineSeconds": int(seconds(600)),
        "deadlineSeconds": int(seconds(3600)),
    },
    "storage": {"checkpoints": {"create": True, "size": "1Gi", "accessModes": ["ReadWriteOnce"]}},
}
STEPS = 9
LONG: dict[str, Any] = {
    "actor": {"adam": {"lr": 2e-3}},
    "train": {"num_episodes": 3},
    "ckpt": {"save_steps": 2},
}
"""Nine steps, a checkpoint at every second, so that there is a middle to break it in; it learns enough to be seen."""


def tiny_job(changes: dict[str, Any] | None = None) -> str:
    """The job file of tests/engine with its paths in the shared volume."""
    job: dict[str, Any] = json.loads(json.dumps(rl_jobs.JOB))
    job["actor"]["model_name_or_path"] = f"{ASSETS}/policy"
    job["data"]["prompt_dataset"] = f"{ASSETS}/train.jsonl"
    job["eval"]["dataset"] = f"{ASSETS}/eval.jsonl"
    job["reward"]["remote_url"] = f"{ASSETS}/reward.py"
    job["mtp"]["head"] = f"{ASSETS}/policy/mtp"
    return yaml.safe_dump(merged(job, changes or {}))


def values(cluster: Cluster, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Values of a small run."""
    cache = {"name": "cache", "hostPath": {"path": str(compiled_ops(cluster))}}
    small = merged(SMALL, {"pods": {"extraVolumes": [cache]}})
    return merged(merged(job_values(tiny_job()), small), changes or {})


def long_values(cluster: Cluster) -> dict[str, Any]:
    """Values of a run of `STEPS` steps."""
    return values(cluster, {"job": {"config": tiny_job(LONG)}})


def compiled_ops(cluster: Cluster) -> Path:
    """A folder for DeepSpeed's compiled ops that pods may write to, with what this checkout has already."""
    cache = cluster.folder / "torch-extensions"
    if not cache.exists():
        made = ROOT / ".cache" / "torch-extensions"
        shutil.copytree(made, cache) if made.exists() else cache.mkdir()
        give(cache)
    return cache


def volume(cluster: Cluster, assets: Path, name: str) -> Path:
    """A volume for the claim of a run, with the assets in it."""
    folder = cluster.volume(name)
    shutil.copytree(assets, folder / "assets")
    give(folder)
    return folder


def give(folder: Path) -> None:
    """To the pods' user."""
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, USER, USER)


def rows(folder: Path) -> list[dict[str, float]]:
    """The metrics of the only run in a volume; none before the first step."""
    lines = [line for path in folder.glob("*/metrics.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def kept_output(folder: Path, pod: str) -> str:
    """What workers of a pod have printed, as it is kept in a volume's only run folder."""
    found = sorted(folder.glob(f"*/logs/{pod}/session_*/worker-*"))
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in found)


def steps(folder: Path) -> list[int]:
    """Steps logged so far."""
    return [int(row["step"]) for row in rows(folder)]


def reached(folder: Path, step: int) -> bool:
    """Whether a step has been logged."""
    return max(steps(folder), default=0) >= step
