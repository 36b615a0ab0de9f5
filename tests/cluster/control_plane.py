"""A real control plane: etcd, API server, controllers and scheduler as processes of this machine, with one node."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from tests.cluster.api import Api, until
from tests.cluster.network import HOST_IP, SERVER_IP, Network
from tests.patience import seconds

ROOT = Path(__file__).parents[2]
NODE = "node-0"
ROOM = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "500Gi", "pods": "110", "nvidia.com/gpu": "8"}


class ControlPlane:
    """Use as a context manager; `folder` gets logs, keys, data and the kubeconfig."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self.binaries = folder, binaries
        self.token = secrets.token_hex(16)
        self.api = Api(SERVER_IP, 6443, self.token)
        self.kubeconfig = folder / "kubeconfig"
        self.network = Network()
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            self.network.open()
            self._write_files()
            self._servers()
            self._node()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End what was started here, newest first, and remove the network."""
        for process in reversed(self._started.values()):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds(10))
            if process.poll() is None:
                process.kill()
                process.wait()
        self._started.clear()
        self.network.close()
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    def _start(self, name: str, binary: str, *options: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                self.network.inside(str(self.binaries / binary), *options),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                process_group=0,  # Ctrl-C is for the tests, which end these in order
            )

    def _write_files(self) -> None:
        user = f"{self.token},admin,admin,system:masters\n"
        (self.folder / "tokens.csv").write_text(user, encoding="utf-8")
        new_key = ["openssl", "genrsa", "-out", "accounts.key", "2048"]
        subprocess.run(new_key, cwd=self.folder, check=True, capture_output=True)
        cluster = {"server": self.api.server, "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
            "current-context": "local",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")

    def _servers(self) -> None:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        self._start(
            "etcd",
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",
        )
        self._start(
            "apiserver",
            "kube-apiserver",
            f"--etcd-servers={client}",
            "--secure-port=6443",
            "--bind-address=0.0.0.0",
            f"--advertise-address={SERVER_IP}",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            # service accounts get their tokens from tests/cluster/volumes.py, by the TokenRequest API
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-signing-key-file=accounts.key",
            "--service-account-key-file=accounts.key",
            "--cert-dir=certificates",
        )
        until("an API server", self._ready, 180, 0.3)
        self._start(
            "controllers",
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            # the node's life is the tests' business, and there is no cloud
            "--controllers=*,-nodelifecycle,-nodeipam,-service,-route",
            "--pvclaimbinder-sync-period=2s",
        )
        self._start("scheduler", "kube-scheduler", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false")

    def _ready(self) -> bool:
        for name, process in self._started.items():
            if process.poll() is not None:
                log = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{log[-3000:]}")
        try:
            return bool(self.api.request("GET", "readyz") == "ok")
        except OSError:
            time.sleep(0.2)
            return False

    def _node(self) -> None:
        labels = {"kubernetes.io/hostname": NODE}
        self.api.create("Node", None, {"metadata": {"name": NODE, "labels": labels}})
        status = {
            "allocatable": ROOM,
            "capacity": ROOM,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}],
            # where the API server asks for logs, see tests/cluster/logs.py
            "addresses": [{"type": "InternalIP", "address": HOST_IP}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }
        self.api.patch("Node", None, NODE, {"status": status}, status=True)
        self.api.patch("Node", None, NODE, {"spec": {"taints": None}})
        until("the default namespace", lambda: self.api.get("Namespace", None, "default"), 60)
