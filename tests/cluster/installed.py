"""The chart on a cluster, as a user has it: install, wait, uninstall, and what is left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chart import engine
from tests.cluster.api import PATHS, until
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import Kubelet

NAMESPACE = "default"
OLD_SERVER = {"pdb": {"enabled": False}}
"""policy/v1 came with Kubernetes 1.21; the server here is 1.20, and static checks cover the budget."""
KINDS = [kind for kind in PATHS if kind not in ("Event", "Namespace", "Node", "PersistentVolume")]


@dataclass
class Cluster:
    """A control plane, the node's kubelet and a folder for charts and volumes."""

    plane: ControlPlane
    kubelet: Kubelet
    folder: Path

    def chart(self) -> Path:
        """The chart with one line relaxed: the Kubernetes version it asks for."""
        copy = self.folder / "chart"
        if not copy.exists():
            shutil.copytree(engine.CHART, copy)
            text = (copy / "Chart.yaml").read_text(encoding="utf-8")
            (copy / "Chart.yaml").write_text(text.replace(">=1.25.0-0", ">=1.20.0-0"), encoding="utf-8")
        return copy

    def volume(self, name: str) -> Path:
        """A PersistentVolume on this machine that the next claim is bound to; returns its folder."""
        folder = self.folder / f"volume-{name}"
        folder.mkdir()
        shutil.chown(folder, 1000, 1000)
        spec = {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
        }
        made = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
        self.plane.api.create("PersistentVolume", None, made)
        return folder

    @contextmanager
    def release(self, name: str, values: dict[str, Any], *, timeout_s: int = 300) -> Iterator[str]:
        """Install, give the run's name, and uninstall at the end, whatever happens."""
        helm = engine.Releases(self.plane.kubeconfig, NAMESPACE)
        try:
            helm.install(self.chart(), name, engine.merged(values, OLD_SERVER), timeout_s)
            (policy,) = self.owned(name, "NetworkPolicy")
            yield policy["metadata"]["name"]
        finally:
            helm.uninstall(name)

    def owned(self, release: str, kind: str) -> list[dict[str, Any]]:
        """Objects of a kind that belong to a release, by label."""
        return [
            made
            for made in self.plane.api.list(kind, NAMESPACE)
            if made["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == release
        ]

    def left_of(self, release: str) -> list[str]:
        """Everything in the namespace that still belongs to a release."""
        return [f"{kind} {made['metadata']['name']}" for kind in KINDS for made in self.owned(release, kind)]

    def job_ended(self, name: str, timeout_s: float) -> str:
        """Wait for a Job; returns Complete or Failed."""

        def ended() -> str:
            job = self.plane.api.get("Job", NAMESPACE, name) or {}
            conditions = job.get("status", {}).get("conditions", [])
            return next((one["type"] for one in conditions if one["status"] == "True"), "")

        result: str = until(f"the end of job {name}", ended, timeout_s, 1.0)
        return result
