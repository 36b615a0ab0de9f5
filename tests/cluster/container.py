"""One pod's container: a process tree in namespaces of its own, an address, and how to get inside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.api import until
from tests.cluster.network import SUBNET, Network

SCRIPT = Path(__file__).parent / "container.sh"
BEHIND = ("nice", "-n", "5")
"""Pods come after the control plane, which in life has machines of its own."""
KILLED = 128 + signal.SIGKILL
"""Exit code of a container that was killed, as a container engine gives it."""


@dataclass
class Container:
    """One pod as it runs here."""

    pod: dict[str, Any]
    folder: Path
    number: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    inner: int = 0
    restarts: int = 0
    restart_at: float = 0.0
    ready: bool = False
    ended: bool = False
    stopping: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.pod["metadata"]["namespace"], self.pod["metadata"]["name"]

    @property
    def ip(self) -> str:
        """The pod's address; it stays when the container restarts."""
        return f"{SUBNET}.{self.number}"

    @property
    def spec(self) -> dict[str, Any]:
        """The only container's part of the pod."""
        (container,) = self.pod["spec"]["containers"]
        return dict(container)

    @property
    def user(self) -> str:
        """The pod's uid, which is its gid as well."""
        return str(self.pod["spec"].get("securityContext", {}).get("runAsUser", 0))

    @property
    def restarts_always(self) -> bool:
        """Whether a container that has ended is started again."""
        return bool(self.pod["spec"].get("restartPolicy", "Always") == "Always")

    def log(self) -> str:
        """All output so far, of all restarts."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def exit_code(self) -> int | None:
        """None while it runs."""
        if self.process is None:
            return None
        code = self.process.poll()
        return KILLED if code == -signal.SIGKILL else code

    def start(self, network: Network) -> None:
        """Start it, or restart it after it has ended."""
        root = self.folder / "root"
        root.mkdir(exist_ok=True)
        namespaces = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        place = [str(root), self.key[1], self.user, self.spec.get("workingDir", "/")]
        command = [*self.spec.get("command", []), *self.spec.get("args", [])]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                network.inside(
                    *BEHIND,
                    "unshare",
                    *namespaces,
                    "bash",
                    str(SCRIPT),
                    *place,
                    str(self.folder / "mounts"),
                    *command,
                ),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                process_group=0,
            )
        self.inner = _first_process_inside(self.process, network)
        if self.inner:
            network.attach(self.inner, self.number, f"v{self.number}r{self.restarts}")

    def signal(self, number: signal.Signals) -> None:
        """Send its first process a signal; SIGKILL takes all others of its namespace with it."""
        if self.inner and self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.inner, number)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            if not self.inner:
                self.process.kill()
            self.process.wait()

    def entered(self, command: list[str]) -> list[str]:
        """A command inside, as its user and with its environment."""
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        inside = ["nsenter", "-t", str(self.inner), "-m", "-u", "-i", "-n", "-p", "--root", "--wd"]
        user = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        return [*inside, *user, "env", "-i", *environment, *command]


def _first_process_inside(outer: subprocess.Popen[bytes], network: Network) -> int:
    """The first process of the container, once it has a network namespace of its own; 0 when it has ended before."""
    clusters = network.namespace()

    def inside() -> int | None:
        if outer.poll() is not None:
            return -1
        child = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
        return child if Path(f"/proc/{child}/ns/net").readlink() != clusters else None

    def found() -> int | None:
        with contextlib.suppress(FileNotFoundError, IndexError):
            return inside()
        return None

    return max(0, int(until("a container's first process", found, 60, 0.02)))
