"""The trainer's store: on one interface, and only for ranks that know the run's token.

torch's TCPStore listens on every interface and answers whoever connects: a stranger could end a run or take a rank.
Ours listens where engines reach the trainer. Its entries are sealed with a token that the trainer makes for each run
and hands to the engines through Ray, and an entry without the right seal is no entry. A stranger who reaches the port
can still overwrite entries, whose readers then wait until their deadline.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch.distributed as dist

from openrlhf_mtp.sync.errors import SyncError

SEAL_BYTES = hashlib.sha256().digest_size
TRAINER_RANK = 0  # serves the store, and is the one that sends

Broadcast = Literal["nccl", "gloo"]
"""The transports that broadcast from rank 0."""
Backend = Literal["ipc", Broadcast]


@dataclass(frozen=True)
class Rendezvous:
    """The data with which a rank finds the others; the trainer makes it and hands it to the engines.

    Attributes:
        host, port: of the trainer's store.
        token: the run's secret, which seals the store's entries.
        world_size: the trainer's rank 0 and all engine workers.
        backend: the transport (`sync.transport`).
        timeout_s: in seconds, for joining.
    """

    host: str
    port: int
    token: str
    world_size: int
    backend: Broadcast
    timeout_s: float


def new_token() -> str:
    """A fresh secret, 128 bits as text."""
    return secrets.token_hex(16)


def serve_store(host: str, timeout_s: float) -> dist.TCPStore:
    """The trainer's store on a free port of `host`'s interface alone (read it from `.port`); it lives as long as the
    object.

    Raises:
        SyncError: `host` is no address of this machine.
    """
    family = socket.getaddrinfo(host, None)[0][0]
    try:
        listening = socket.create_server((host, 0), family=family, backlog=4096)
    except OSError as error:
        raise SyncError(
            f"the weight sync cannot listen on {host}, by which Ray knows this node: {error.strerror}. Start Ray here "
            "with --node-ip-address and an address of one of this machine's interfaces"
        ) from error
    port = listening.getsockname()[1]
    return dist.TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=listening.detach(),  # the store closes it
    )


def connect_store(host: str, port: int, timeout_s: float) -> dist.TCPStore:
    """Connect to the store that another process serves; blocks until it answers.

    Raises:
        RuntimeError: no answer in about `timeout_s`.
    """
    return dist.TCPStore(
        host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout_s)
    )


def own_address(host: str, port: int) -> str:
    """The address of this machine from which `host` is reached: that of the interface in use."""
    family = socket.getaddrinfo(host, port)[0][0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # sends nothing; the kernel picks the route
        address: str = probe.getsockname()[0]
    return address


class SealedStore(dist.Store):
    """A store among others who know the token. Names are hashed with it, values carry a seal over name and value.

    torch's process groups use it as they use any store.
    """

    def __init__(self, store: dist.Store, token: str) -> None:
        super().__init__()
        self._store, self._token = store, token.encode()

    @property
    def unsealed(self) -> dist.Store:
        """The store underneath, whose entries nobody vouches for."""
        return self._store

    def _mac(self, *parts: bytes) -> bytes:
        lengths = b",".join(str(len(part)).encode() for part in parts)
        return hmac.digest(self._token, lengths + b":" + b"".join(parts), "sha256")

    def _name(self, key: str) -> str:
        return self._mac(b"name", key.encode()).hex()

    def set(self, key: str, value: str | bytes) -> None:
        """Write an entry."""
        data = value.encode() if isinstance(value, str) else bytes(value)
        sealed = self._mac(b"value", key.encode(), data) + data
        self._store.set(self._name(key), sealed)  # type: ignore[arg-type]  # torch's stub knows text only

    def get(self, key: str) -> bytes:
        """Read an entry, once it is there.

        Raises:
            ValueError: its seal is not of this run's token.
        """
        sealed: bytes = self._store.get(self._name(key))
        seal, data = sealed[:SEAL_BYTES], sealed[SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._mac(b"value", key.encode(), data)):
            raise ValueError(f"the entry {key} of the sync store was written by a stranger")
        return data

    def check(self, keys: list[str]) -> bool:
        """Whether all entries are there, with right seals."""
        if not self._store.check([self._name(key) for key in keys]):
            return False
        try:
            for key in keys:
                self.get(key)
        except ValueError:
            return False
        return True

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Wait until all entries are there."""
        names = [self._name(key) for key in keys]
        self._store.wait(*([names] if timeout is None else [names, timeout]))

    def set_timeout(self, timeout: timedelta) -> None:
        """Seconds that `get` and `wait` wait at most."""
        self._store.set_timeout(timeout)

    def add(self, key: str, amount: int) -> Any:
        """Not offered: a sum cannot carry a seal."""
        raise NotImplementedError("the sync group's store adds nothing up")
