"""One pod's container: what is known of it, its address, and how to get inside."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.api import until
from tests.cluster.control_plane import SERVER_IP, ControlPlane


@dataclass
class Container:
    """One pod as it runs here."""

    pod: dict[str, Any]
    folder: Path
    ip: str
    number: int
    process: subprocess.Popen[bytes] | None = None
    inner: int = 0
    restarts: int = 0
    ready: bool = False
    ended: bool = False
    stopping: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def container(self) -> dict[str, Any]:
        """The only container."""
        (container,) = self.pod["spec"]["containers"]
        return dict(container)

    @property
    def user(self) -> str:
        """The pod's uid."""
        return str(self.pod["spec"].get("securityContext", {}).get("runAsUser", 0))

    def log(self) -> str:
        """All output so far, of all restarts."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")


def inner_process(outer: subprocess.Popen[bytes], holder: int) -> int:
    """The first process inside, once it has a network namespace of its own."""

    def child() -> int:
        with contextlib.suppress(FileNotFoundError, IndexError):
            return int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
        return 0

    inner: int = until("a container's first process", child, 20, 0.02)
    own = Path(f"/proc/{holder}/ns/net").readlink()
    until("its network", lambda: Path(f"/proc/{inner}/ns/net").readlink() != own, 20, 0.02)
    return inner


def attach(plane: ControlPlane, running: Container) -> None:
    """Give the pod its address; the pair of devices goes with its namespace."""
    outside = f"v{running.number}r{running.restarts}"
    plane.ip(*f"link add {outside} type veth peer name eth0 netns {running.inner}".split())
    plane.ip(*f"link set {outside} master br0 up".split())
    inside = ["nsenter", "-t", str(running.inner), "-n", "ip"]
    for words in (
        f"addr add {running.ip}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {SERVER_IP}",
    ):
        subprocess.run([*inside, *words.split()], check=True, capture_output=True)


def entered(running: Container, command: list[str]) -> list[str]:
    """A command in a container, as its user and with its environment."""
    environment = [f"{name}={value}" for name, value in running.environment.items()]
    inside = ["nsenter", "-t", str(running.inner), "-m", "-u", "-i", "-n", "-p", "--root", "--wd"]
    return [
        *inside,
        "setpriv",
        f"--reuid={running.user}",
        "--clear-groups",
        "env",
        "-i",
        *environment,
        *command,
    ]
