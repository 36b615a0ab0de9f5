"""Two hosts whose names resolve to 127.0.1.1, as Debian sets them up: network namespaces with a cable between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import python_path

ADDRESSES = ("10.203.0.1", "10.203.0.2")
CABLE = "cable"
OUTSIDE = ["setpriv", "--pdeathsig", "KILL"]
"""What starts so ends when this process ends."""


@dataclass(frozen=True)
class Host:
    """A namespace of network, mounts and host name, which lives as long as its first process."""

    number: int
    holder: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return ADDRESSES[self.number]

    def inside(self, *command: str) -> list[str]:
        return [*OUTSIDE, "nsenter", "-t", str(self.holder.pid), "-n", "-m", "-u", *command]

    def run(self, *command: str) -> None:
        subprocess.run(self.inside(*command), check=True, capture_output=True)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command there, with our modules on its path; its output is kept."""
        return subprocess.Popen(
            self.inside(*command),
            env={**os.environ, "PYTHONPATH": python_path(), **environment},
            text=True,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def python(self, module: str, function: str, *arguments: Any) -> subprocess.Popen[str]:
        """Start a function of a module of `tests.engine` there."""
        code = f"from tests.engine import {module} as m; m.{function}(*{arguments!r})"
        return self.start(sys.executable, "-c", code)


def obstacle() -> str | None:
    """Why this machine cannot make such hosts."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    missing = [tool for tool in ("unshare", "nsenter", "ip", "setpriv") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    made = subprocess.run(["unshare", "--net", "--mount", "--uts", "true"], capture_output=True, check=False)
    return None if made.returncode == 0 else "needs the right to make namespaces, as few containers have it"


def make_host(number: int, folder: Path) -> Host:
    """Start a host with a name that resolves to its own loopback."""
    held = ["unshare", "--net", "--mount", "--uts", "sleep", "infinity"]
    holder = subprocess.Popen([*OUTSIDE, *held])
    here, there = Path("/proc/self/ns/uts").readlink(), Path(f"/proc/{holder.pid}/ns/uts")
    while there.readlink() == here:
        time.sleep(0.01)
    host, name = Host(number, holder), f"host-{number}"
    hosts = folder / f"hosts-{number}"
    hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
    host.run("hostname", name)
    host.run("mount", "--bind", str(hosts), "/etc/hosts")
    return host


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Both hosts, connected; skips the test where they cannot be made."""
    found = obstacle()
    if found:
        pytest.skip(found)
    with ExitStack() as stack:
        pair = (make_host(0, folder), make_host(1, folder))
        for host in pair:
            stack.callback(host.holder.wait)
            stack.callback(host.holder.kill)
        first, second = (str(host.holder.pid) for host in pair)
        cable = f"link add {CABLE} netns {first} type veth peer name {CABLE} netns {second}"
        subprocess.run(["ip", *cable.split()], check=True, capture_output=True)
        for host in pair:
            host.run("ip", "addr", "add", f"{host.address}/24", "dev", CABLE)
            host.run("ip", "link", "set", CABLE, "up")
            host.run("ip", "link", "set", "lo", "up")
        yield pair
