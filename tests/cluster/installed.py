"""The chart on a cluster, as a user has it: install, wait, uninstall, and what is left."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helm import engine
from tests.cluster.api import CLUSTER_WIDE, PATHS, until
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubelet import Kubelet

NAMESPACE = "default"
OLD_SERVER = {"pdb": {"enabled": False}}
"""policy/v1 came with Kubernetes 1.21; the server here is 1.20, and static checks cover the budget."""
KINDS = [kind for kind in PATHS if kind not in ("Event", "RayJob", *CLUSTER_WIDE)]


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

    def volume(self, name: str, claim: str | None = "") -> Path:
        """A PersistentVolume on this machine, for a claim (default: of the release `name`; None: any); its folder."""
        folder = self.folder / f"volume-{name}"
        folder.mkdir()
        spec: dict[str, Any] = {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
        }
        if claim is not None:
            spec["claimRef"] = {"namespace": NAMESPACE, "name": claim or f"{name}-checkpoints"}
        self.plane.api.create("PersistentVolume", None, {"metadata": {"name": name}, "spec": spec})
        return folder

    @contextmanager
    def release(self, name: str, values: dict[str, Any], *, timeout_s: int = 600) -> Iterator[str]:
        """Install, give the run's name, and uninstall at the end, whatever happens."""
        helm = self.helm()
        try:
            helm.install(self.chart(), name, engine.merged(values, OLD_SERVER), timeout_s)
            yield self.run_of(name)
        finally:
            helm.uninstall(name)

    def upgrade(self, name: str, values: dict[str, Any], *, timeout_s: int = 600) -> str:
        """Upgrade a release; the new run's name."""
        self.helm().upgrade(self.chart(), name, engine.merged(values, OLD_SERVER), timeout_s)
        return self.run_of(name)

    def helm(self) -> engine.Releases:
        """Helm on this cluster."""
        return engine.Releases(self.plane.kubeconfig, NAMESPACE)

    def run_of(self, name: str) -> str:
        """The name of the release's run."""
        (policy,) = self.owned(name, "NetworkPolicy")
        return str(policy["metadata"]["name"])

    def owned(self, release: str, kind: str) -> list[dict[str, Any]]:
        """Objects of a kind that belong to a release, by label."""
        return [
            made
            for made in self.plane.api.list(kind, NAMESPACE)
            if made["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == release
        ]

    def pods_of(self, run: str) -> list[str]:
        """Names of a run's pods that are listed, those that are going included."""
        return [
            pod["metadata"]["name"]
            for pod in self.plane.api.list("Pod", NAMESPACE)
            if pod["metadata"].get("labels", {}).get("openrlhf-mtp.io/run") == run
        ]

    def left_of(self, release: str) -> list[str]:
        """Everything in the namespace that still belongs to a release, and Helm's own record of it."""
        owned = [f"{kind} {made['metadata']['name']}" for kind in KINDS for made in self.owned(release, kind)]
        secrets = self.plane.api.list("Secret", NAMESPACE)
        records = [one for one in secrets if one["metadata"].get("labels", {}).get("name") == release]
        return [*owned, *(f"Secret {one['metadata']['name']}" for one in records)]

    def finish(self, release: str, timeout_s: float = 180) -> None:
        """After the uninstall nothing may be left but the claim, which is removed here.

        Raises:
            TimeoutError: with what is left.
        """
        claim = f"{release}-checkpoints"
        kept = [f"PersistentVolumeClaim {claim}"]
        try:
            until("nothing left but the claim", lambda: self.left_of(release) == kept, timeout_s)
        except TimeoutError as problem:
            raise TimeoutError(f"{problem}; left: {self.left_of(release)}") from None
        self.plane.api.delete("PersistentVolumeClaim", NAMESPACE, claim)

    def job_ended(self, name: str, timeout_s: float) -> str:
        """Wait for a Job; returns Complete or Failed."""

        def ended() -> str:
            job = self.plane.api.get("Job", NAMESPACE, name) or {}
            conditions = job.get("status", {}).get("conditions", [])
            return next((one["type"] for one in conditions if one["status"] == "True"), "")

        result: str = until(f"the end of job {name}", ended, timeout_s, 1.0)
        return result
