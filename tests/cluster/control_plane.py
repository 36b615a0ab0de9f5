"""A real control plane: etcd, API server, controllers, scheduler as processes in a network namespace of this machine.

The namespace holds a bridge; pods and this machine are attached to it, so that each pod has an address of its own:

    10.244.9.1    API server        10.244.9.254    this machine        10.244.9.10 and up    pods
"""

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

ROOT = Path(__file__).parents[2]
SUBNET = "10.244.9"
SERVER_IP, HOST_IP = f"{SUBNET}.1", f"{SUBNET}.254"
NODE = "node-0"


class ControlPlane:
    """Use as a context manager; `folder` gets logs, keys, data and the kubeconfig."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self.binaries = folder, binaries
        self.token = secrets.token_hex(16)
        self.api = Api(f"https://{SERVER_IP}:6443", self.token)
        self.kubeconfig = folder / "kubeconfig"
        self._started: list[subprocess.Popen[bytes]] = []
        self.holder = 0
        self._host_end = f"mtp{secrets.token_hex(3)}"

    def __enter__(self) -> Self:
        try:
            self._network()
            self._write_files()
            self._servers()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def inside(self, *command: str) -> list[str]:
        """A command in the cluster's network namespace."""
        return ["nsenter", "-t", str(self.holder), "-n", *command]

    def ip(self, *words: str) -> None:
        """`ip` in the cluster's network namespace."""
        subprocess.run(self.inside("ip", *words), check=True, capture_output=True)

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """A process in the cluster's network namespace, ended by `stop`."""
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(self.inside(*command), stdout=log, stderr=log, cwd=self.folder)
        self._started.append(process)
        return process

    def stop(self) -> None:
        """End what was started here, newest first, and remove the namespace."""
        for process in reversed(self._started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()
        self._started.clear()
        subprocess.run(["ip", "link", "del", self._host_end], check=False, capture_output=True)
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    def _network(self) -> None:
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._started.append(holder)
        self.holder = holder.pid
        own = Path("/proc/self/ns/net").readlink()
        until("a network namespace", lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != own, 10, 0.02)
        for words in (
            "link set lo up",
            "link add br0 type bridge",
            f"addr add {SERVER_IP}/24 dev br0",
            "link set br0 up",
        ):
            self.ip(*words.split())
        subprocess.run(
            [
                "ip",
                "link",
                "add",
                self._host_end,
                "type",
                "veth",
                "peer",
                "name",
                "host",
                "netns",
                str(self.holder),
            ],
            check=True,
        )
        self.ip("link", "set", "host", "master", "br0", "up")
        subprocess.run(["ip", "addr", "add", f"{HOST_IP}/24", "dev", self._host_end], check=True)
        subprocess.run(["ip", "link", "set", self._host_end, "up"], check=True)

    def _write_files(self) -> None:
        (self.folder / "tokens.csv").write_text(
            f"{self.token},admin,admin,system:masters\n", encoding="utf-8"
        )
        subprocess.run(
            ["openssl", "genrsa", "-out", "accounts.key", "2048"],
            cwd=self.folder,
            check=True,
            capture_output=True,
        )
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "local", "cluster": {"server": self.api.server, "insecure-skip-tls-verify": True}}
            ],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
            "current-context": "local",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")

    def _servers(self) -> None:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        self.start(
            "etcd",
            str(self.binaries / "etcd"),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",
        )
        self.start(
            "apiserver",
            str(self.binaries / "kube-apiserver"),
            f"--etcd-servers={client}",
            "--secure-port=6443",
            "--bind-address=0.0.0.0",
            f"--advertise-address={SERVER_IP}",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            # service accounts get their tokens from tests/cluster/kubelet.py, by the TokenRequest API
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-signing-key-file=accounts.key",
            "--service-account-key-file=accounts.key",
            "--cert-dir=certificates",
            "--allow-privileged=false",
        )
        until("an API server", self._ready, 120, 0.3)
        shared = f"--kubeconfig={self.kubeconfig}"
        self.start(
            "controllers",
            str(self.binaries / "kube-controller-manager"),
            shared,
            "--leader-elect=false",
            "--controllers=*,-nodelifecycle,-nodeipam,-service,-route",
            "--pvclaimbinder-sync-period=2s",
        )
        self.start("scheduler", str(self.binaries / "kube-scheduler"), shared, "--leader-elect=false")
        self._node()

    def _ready(self) -> bool:
        try:
            return bool(self.api.request("GET", "readyz") == "ok")
        except OSError:
            time.sleep(0.2)
            return False

    def _node(self) -> None:
        room = {
            "cpu": "64",
            "memory": "256Gi",
            "ephemeral-storage": "500Gi",
            "pods": "110",
            "nvidia.com/gpu": "8",
        }
        self.api.create(
            "Node", None, {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}}
        )
        status = {
            "allocatable": room,
            "capacity": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}],
            # where the API server asks for logs, see tests/cluster/logs.py
            "addresses": [{"type": "InternalIP", "address": HOST_IP}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }
        self.api.patch("Node", None, NODE, {"status": status}, status=True)
        self.api.patch("Node", None, NODE, {"spec": {"taints": None}})
        until("the default namespace", lambda: self.api.get("Namespace", None, "default"), 30)
