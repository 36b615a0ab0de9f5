"""Two hosts whose names resolve to 127.0.1.1, as Debian sets them up: the ranks of a sync group reach one another.

Two network namespaces with a cable between them stand for the hosts. gloo's own choice of an address, what the host
name resolves to, must fail there; else this proves nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.network_hosts import ADDRESSES, Host, two_hosts
from tests.patience import seconds

SENT = 250_000
THIS = Path(__file__).stem


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as pair:
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
    trainer = pair[0].python(THIS, "join", 0, 0, timeout_s, chosen_by_gloo)
    assert trainer.stdout is not None
    port = int(trainer.stdout.readline())
    engine = pair[1].python(THIS, "join", 1, port, timeout_s, chosen_by_gloo)
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
