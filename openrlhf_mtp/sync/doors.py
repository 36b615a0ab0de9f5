"""Local sockets, at which a trainer rank meets the workers on its device: those who know the run's token.

The kernel closes the socket of a process that ends, so that the other side notices a death at once. Messages are JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError, reduction
from multiprocessing.connection import (
    Client,
    Connection,
    answer_challenge,
    deliver_challenge,
    wait,
)
from typing import Any

import torch

from openrlhf_mtp.sync.errors import SyncError, SyncTimeout
from openrlhf_mtp.sync.store import new_token
from openrlhf_mtp.sync.transport import Place
from openrlhf_mtp.sync.waiting import Background, Deadline, no_watch, poll

FAMILY = "AF_UNIX"
BACKLOG = 64
LOOK_S = 0.05
"""How often a wait for a message looks at what else may end it; the message itself ends it at once."""


class Line:
    """One end of a connection: messages in order, and an open file beside one.

    Args:
        connection: the socket.
        peer: names the other end in errors.
    """

    def __init__(self, connection: Connection, peer: str) -> None:
        self._connection, self.peer = connection, peer

    def fileno(self) -> int:
        """The socket's number, for `multiprocessing.connection.wait`."""
        return self._connection.fileno()

    def say(self, file: int | None = None, **message: Any) -> None:
        """Send a message, and an open file right behind it.

        Raises:
            SyncError: the other end is gone, or has given up and says why.
        """
        try:
            self._connection.send_bytes(json.dumps(message | {"has_file": file is not None}).encode())
            if file is not None:
                reduction.send_handle(self._connection, file, None)  # the pid is Windows'
        except OSError as error:
            with contextlib.suppress(OSError):
                while self._connection.poll():  # its last words, if it had any
                    self.hear()
            raise SyncError(f"{self.peer} is gone: {error}") from error

    def hear(self) -> tuple[dict[str, Any], int | None]:
        """The next message, which has arrived, and the open file behind it.

        Raises:
            SyncError: the other end is gone, or it has given up and says why.
        """
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
            file = reduction.recv_handle(self._connection) if message.pop("has_file") else None
        except (OSError, EOFError) as error:
            raise SyncError(f"{self.peer} is gone: its process has ended or left the sync") from error
        if "gave_up" in message:
            raise SyncError(f"another rank gave up: {message['gave_up']}")
        return message, file

    def close(self) -> None:
        """Hang up; the other end notices at once."""
        self._connection.close()


def wait_for_one(lines: Sequence[Line], deadline: Deadline, watch: Any = no_watch) -> list[Line]:
    """The lines on which something can be heard; none when the deadline has passed.

    Args:
        lines: to listen to.
        deadline: when to stop.
        watch: called now and then; may raise to end the wait.

    Raises:
        SyncError: this process has hung up itself.
    """
    while True:
        watch()
        try:
            ready: Any = wait(list(lines), min(LOOK_S, deadline.remaining()))  # type: ignore[arg-type]  # fileno() will do
        except OSError as error:
            raise SyncError("the sync is closed; it does not survive a failed round") from error
        if ready or deadline.passed():
            return [line for line in lines if line in ready]


@dataclass(frozen=True)
class Card:
    """How workers find a trainer rank; plain values, which ranks exchange.

    Attributes:
        rank: of the trainer.
        place: its device.
        address: of its socket.
        token: rank 0's is the run's.
    """

    rank: int
    place: Place
    address: str
    token: str


class Door:
    """A trainer rank's socket, which workers come to once it is open.

    It has no file: the kernel forgets its name with the process.
    """

    def __init__(self, device: torch.device, rank: int = 0) -> None:
        address = f"\0openrlhf-mtp {os.getpid()} {secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(address)
        self._socket.listen(BACKLOG)
        self.device = device
        self.card = Card(rank, Place.of(device), address, new_token())
        self.lines: list[Line] = []

    def open(self, token: str) -> None:
        """From now on whoever knows the token is let in."""
        threading.Thread(target=self._serve, args=(token.encode(),), daemon=True, name="mtp-sync").start()

    def close(self) -> None:
        """Let nobody in any more, and hang up."""
        with contextlib.suppress(OSError):  # closed before
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._socket.close()
        for line in self.lines:
            line.close()

    def _serve(self, token: bytes) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError:  # closed
                return
            connection = Connection(accepted.detach())
            # a thread each, so that a stranger who says nothing holds nobody up
            threading.Thread(
                target=self._admit, args=(connection, token), daemon=True, name="mtp-sync"
            ).start()

    def _admit(self, connection: Connection, token: bytes) -> None:
        try:
            deliver_challenge(connection, token)
            answer_challenge(connection, token)
            line = Line(connection, "a worker")
            message, _ = line.hear()
            line.peer = message["role"]
            self.lines.append(line)
            line.say(joined=True)
        except Exception:  # a stranger, or a worker that died; whoever waits for it has a deadline
            connection.close()


def knock(rank: int, address: str, token: str, role: str, deadline: Deadline) -> Line:
    """In a worker: a line to the trainer rank on its device, whose card says where it is.

    Raises:
        SyncTimeout: the rank does not let us in.
        SyncError: there is no such rank on this machine.
    """

    def join() -> Line:
        line = Line(Client(address, FAMILY, authkey=token.encode()), f"trainer rank {rank}")
        line.say(role=role)
        line.hear()
        return line

    call = Background(join)
    if not poll(call.done, deadline):
        raise SyncTimeout(f"sync {role}: trainer rank {rank} does not let it in within {deadline}")
    try:
        line: Line = call.result()
    except (OSError, EOFError, AuthenticationError) as error:
        raise SyncError(f"sync {role}: cannot reach trainer rank {rank} on this machine: {error}") from error
    return line
