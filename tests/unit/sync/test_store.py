"""Who does not know the token can neither end a run nor take a rank; no other interface leads to the store."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.sync.errors import SyncError, SyncTimeout
from openrlhf_mtp.sync.group import SyncGroup
from openrlhf_mtp.sync.rank_notes import FailureFlag
from openrlhf_mtp.sync.store import (
    Rendezvous,
    SealedStore,
    connect_store,
    new_token,
    own_address,
    serve_store,
)


@given(key=st.text(min_size=1, max_size=20), value=st.binary(max_size=200))
def test_who_knows_the_token_reads_what_was_written(key: str, value: bytes) -> None:
    shared = dist.HashStore()
    SealedStore(shared, "secret").set(key, value)
    reader = SealedStore(shared, "secret")
    assert reader.check([key])
    assert reader.get(key) == value
    assert not SealedStore(shared, "another").check([key])


@given(at=st.integers(0, 39), bit=st.integers(0, 7))
def test_an_entry_that_was_tampered_with_is_no_entry(at: int, bit: int) -> None:
    shared = dist.HashStore()
    store = SealedStore(shared, "secret")
    store.set("progress/1", b"0|engine")
    (name,) = shared.list_keys()
    sealed = bytearray(shared.get(name))
    assert len(sealed) == 40
    sealed[at] ^= 1 << bit
    shared.set(name, bytes(sealed))
    assert not store.check(["progress/1"])
    with pytest.raises(ValueError, match="progress/1 of the sync store was written by a stranger"):
        store.get("progress/1")


def test_an_entry_does_not_pass_for_another() -> None:
    shared = dist.HashStore()
    store = SealedStore(shared, "secret")
    store.set("failed", b"engine 1 is gone")
    store.set("progress/1", b"0|engine")
    names = {store._name(key): key for key in ("failed", "progress/1")}
    for name in names:
        shared.set(name, shared.get(store._name("failed" if names[name] != "failed" else "progress/1")))
    assert not store.check(["failed"])


def test_a_stranger_cannot_end_a_run() -> None:
    served = serve_store("127.0.0.1", 10)
    flag = FailureFlag(SealedStore(served, new_token()))
    stranger = connect_store("127.0.0.1", served.port, 10)
    stranger.set("failed", "stop")
    FailureFlag(SealedStore(stranger, new_token())).set("stop")
    assert flag.reason() is None


def test_a_stranger_cannot_take_a_rank() -> None:
    served = serve_store("127.0.0.1", 10)

    def join(rank: int, token: str) -> str:
        role = f"rank {rank} with {token}"
        own = served if rank == 0 else None
        with pytest.raises(SyncTimeout) as error:
            SyncGroup(Rendezvous("127.0.0.1", served.port, token, 2, "gloo", 0.5), rank, role, store=own)
        return str(error.value)

    with ThreadPoolExecutor(2) as pool:
        trainer, stranger = pool.map(join, (0, 1), ("secret", "guess"))
    assert "rank 1 never joined" in trainer
    assert "rank 0 never joined" in stranger


def test_the_store_listens_on_its_own_interface_alone() -> None:
    served = serve_store("127.0.0.1", 10)
    other = "127.0.0.2"  # every address of 127/8 is this machine's loopback
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect((other, served.port))
    assert own_address("127.0.0.1", served.port) == "127.0.0.1"


def test_an_address_of_another_machine_is_refused_in_words() -> None:
    with pytest.raises(
        SyncError, match=r"cannot listen on 192\.0\.2\.1, by which Ray knows this node.*--node-ip-address"
    ):
        serve_store("192.0.2.1", 10)  # set aside for documentation: no machine has it


def test_tokens_differ() -> None:
    assert new_token() != new_token()
    assert len(new_token()) == 32
