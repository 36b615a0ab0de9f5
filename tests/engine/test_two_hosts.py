"""Two hosts whose names resolve to 127.0.1.1, as Debian sets them up: the ranks of a sync group reach one another.

Two network namespaces with a cable between them stand for the hosts. gloo's own choice of an address, what the host
name resolves to, must fail there; else this proves nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.tiny import python_path
from tests.patience import seconds

ADDRESSES = ("10.203.0.1", "10.203.0.2")
OUTSIDE = ["setpriv", "--pdeathsig", "KILL"]
"""What starts so ends when this process ends."""
SENT = 250_000


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

    def python(self, function: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a function of this module there."""
        code = f"from tests.engine import {Path(__file__).stem} as m; m.{function}(*{arguments!r})"
        environment = {**os.environ, "PYTHONPATH": python_path()}
        return subprocess.Popen(
            self.inside(sys.executable, "-c", code),
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
        )


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


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    found = obstacle()
    if found:
        pytest.skip(found)
    folder = tmp_path_factory.mktemp("hosts")
    with ExitStack() as stack:
        pair = (make_host(0, folder), make_host(1, folder))
        for host in pair:
            stack.callback(host.holder.wait)
            stack.callback(host.holder.kill)
        first, second = (str(host.holder.pid) for host in pair)
        cable = f"link add cable netns {first} type veth peer name cable netns {second}"
        subprocess.run(["ip", *cable.split()], check=True, capture_output=True)
        for host in pair:
            host.run("ip", "addr", "add", f"{host.address}/24", "dev", "cable")
            host.run("ip", "link", "set", "cable", "up")
            host.run("ip", "link", "set", "lo", "up")
        yield pair


def join(rank: int, port: int, timeout_s: float, chosen_by_gloo: bool) -> None:
    """A rank on its host: rank 0 serves the store and prints its port, both print what came of the broadcast."""
    import torch
    import torch.distributed as dist

    from openrlhf_mtp.sync import transport
    from openrlhf_mtp.sync.errors import SyncError
    from openrlhf_mtp.sync.group import SyncGroup
    from openrlhf_mtp.sync.store import Rendezvous, serve_store
    from openrlhf_mtp.sync.waiting import Deadline

    if chosen_by_gloo:
        default = dist.ProcessGroupGloo.create_default_device
        dist.ProcessGroupGloo.create_device = lambda hostname: default()
    trainer = ADDRESSES[0]
    store = serve_store(trainer, timeout_s) if rank == 0 else None
    if store is not None:
        port = store.port
        print(port, flush=True)
    at = Rendezvous(trainer, port, "secret", 2, "gloo", timeout_s)
    buffer = torch.full((SENT,), 7 * (rank == 0), dtype=torch.uint8)
    try:
        group = SyncGroup(at, rank, "trainer" if rank == 0 else "engine 0 worker 0", store=store)
        group.broadcast(buffer, "round 1 policy bucket 1/1", Deadline(timeout_s))
        print(f"received {int(buffer.sum())} at {transport.own_address(trainer, port)}", flush=True)
    except SyncError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    time.sleep(seconds(60))  # the store lives as long as its process
    os._exit(0)


def broadcast(pair: tuple[Host, Host], timeout_s: float, *, chosen_by_gloo: bool = False) -> list[str]:
    """Each rank's last line."""
    trainer = pair[0].python("join", 0, 0, timeout_s, chosen_by_gloo)
    assert trainer.stdout is not None
    port = int(trainer.stdout.readline())
    engine = pair[1].python("join", 1, port, timeout_s, chosen_by_gloo)
    assert engine.stdout is not None
    try:
        return [rank.stdout.readline() for rank in (trainer, engine) if rank.stdout is not None]
    finally:
        for rank in (trainer, engine):
            rank.kill()
            rank.wait()


def test_ranks_listen_where_the_other_host_reaches_them(hosts: tuple[Host, Host]) -> None:
    found = broadcast(hosts, seconds(30))
    assert found == [f"received {7 * SENT} at {address}\n" for address in ADDRESSES]


@pytest.mark.nightly
def test_the_address_of_the_host_name_leads_nowhere(hosts: tuple[Host, Host]) -> None:
    found = broadcast(hosts, seconds(6), chosen_by_gloo=True)
    assert all("connecting" in line for line in found), found
    assert "remote=[127.0.1.1]" in found[1], found
