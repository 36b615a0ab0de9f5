"""The network of the local cluster: a namespace of this machine with a bridge, and what is attached to it.

10.244.9.1    API server        10.244.9.254    this machine        10.244.9.10 and up    pods
"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from tests.cluster.api import until

SUBNET = "10.244.9"
SERVER_IP, HOST_IP = f"{SUBNET}.1", f"{SUBNET}.254"
WITH_US = ["setpriv", "--pdeathsig", "KILL"]
"""What starts so ends when the thread that started it ends, however that comes about: nothing outlives the tests."""


class Network:
    """Use `open` and `close`; everything goes with the process that holds the namespace."""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        self._host_end = f"mtp{secrets.token_hex(3)}"

    def open(self) -> None:
        """Make the namespace and its bridge, and attach this machine."""
        self._holder = subprocess.Popen([*WITH_US, "unshare", "--net", "sleep", "infinity"], process_group=0)
        own = Path("/proc/self/ns/net").readlink()
        until("a network namespace", lambda: self.namespace() != own, 10, 0.02)
        self.ip("link set lo up")
        # with an address of its own: else a bridge takes its lowest port's, and another as pods come and go
        self.ip("link add br0 address 02:00:0a:f4:09:01 type bridge")
        self.ip(f"addr add {SERVER_IP}/24 dev br0")
        self.ip("link set br0 up")
        _ip(f"link add {self._host_end} type veth peer name host netns {self._holder.pid}")
        self.ip("link set host master br0 up")
        _ip(f"addr add {HOST_IP}/24 dev {self._host_end}")
        _ip(f"link set {self._host_end} up")

    def close(self) -> None:
        """Remove it."""
        if self._holder is None:
            return
        subprocess.run(["ip", "link", "del", self._host_end], check=False, capture_output=True)
        self._holder.kill()
        self._holder.wait()

    def namespace(self) -> Path:
        """What /proc calls the namespace."""
        assert self._holder is not None
        return Path(f"/proc/{self._holder.pid}/ns/net").readlink()

    def inside(self, *command: str) -> list[str]:
        """A command in the namespace."""
        assert self._holder is not None
        return [*WITH_US, "nsenter", "-t", str(self._holder.pid), "-n", *command]

    def ip(self, words: str) -> None:
        """`ip` in the namespace."""
        subprocess.run(self.inside("ip", *words.split()), check=True, capture_output=True)

    def attach(self, pid: int, number: int, device: str) -> str:
        """Give a process's own network namespace an address on the bridge; the pair of devices goes with it."""
        address = f"{SUBNET}.{number}"
        self.ip(f"link add {device} type veth peer name eth0 netns {pid}")
        self.ip(f"link set {device} master br0 up")
        for words in (
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {SERVER_IP}",
        ):
            subprocess.run(
                ["nsenter", "-t", str(pid), "-n", "ip", *words.split()], check=True, capture_output=True
            )
        return address


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)
