"""A round in shared memory between real processes: one trainer rank, two workers, six buckets."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.patience import seconds
from tests.processes import forking

TIMEOUT_S = seconds(2.0)
SLACK_S = seconds(6.0)  # a loaded machine
BUCKETS, FAULT_AT, BYTES = 6, 4, 3_000_000
GIVES_UP = 0

Faults = dict[int, int]
"""Process (0 is the trainer) -> the signal that it sends itself, or GIVES_UP."""


@dataclass(frozen=True)
class End:
    """How one process left the round: seconds in its last wait, the error's type and text (empty: none), and the shared
    memory that it still had afterwards."""

    seconds: float
    error: str
    message: str
    kept: list[str]


def kept() -> list[str]:
    """What this process holds of the sync's memory: mappings, open files, and memory of the GPU."""
    import torch

    from openrlhf_mtp.sync.shared_memory import NAME

    files = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [text for text in (*files, *lines) if f"memfd:{NAME}" in text]
    if torch.cuda.is_initialized() and torch.cuda.memory_allocated():
        found.append(f"{torch.cuda.memory_allocated()} bytes of the GPU")
    return found


def fail_with(fault: int | None) -> None:
    if fault == GIVES_UP:
        raise RuntimeError("the weights are on fire")
    if fault is not None:
        os.kill(os.getpid(), fault)


def trainer(connection: Connection, fault: int | None, device: str) -> float:
    """Hand over bucket n filled with n; seconds in the last wait."""
    import torch

    from openrlhf_mtp.sync.doors import Door
    from openrlhf_mtp.sync.handover import Handover
    from openrlhf_mtp.sync.waiting import Deadline

    door = Door(torch.device(device))
    door.open("secret")
    connection.send(door.card.address)
    connection.recv()  # both workers are in
    outlet = Handover(door)
    begin = time.monotonic()
    try:
        memory = outlet.begin(BYTES)
        for number in range(1, BUCKETS + 1):
            fail_with(fault if number == FAULT_AT else None)
            buffer = memory[: BYTES - number].fill_(number)
            begin = time.monotonic()
            outlet.send(buffer, f"round 1 policy bucket {number}/{BUCKETS}", Deadline(TIMEOUT_S))
        del memory, buffer
        outlet.end(Deadline(TIMEOUT_S))
    except Exception as error:
        outlet.fail(str(error))
        error.args = (str(error), time.monotonic() - begin)
        raise
    return time.monotonic() - begin


def worker(connection: Connection, number: int, fault: int | None, device: str) -> float:
    """Take the buckets and check them; seconds in the last wait."""
    import torch

    from openrlhf_mtp.sync.outlets import connect_inlet
    from openrlhf_mtp.sync.waiting import Deadline

    door = [[0, connection.recv()]]
    info = {"engine": number - 1, "doors": door, "token": "secret", "timeout_s": seconds(30)}
    inlet = connect_inlet(info, 0, torch.device(device))
    connection.send("in")
    begin = time.monotonic()
    try:
        for n in range(1, BUCKETS + 1):
            fail_with(fault if n == FAULT_AT else None)
            begin = time.monotonic()
            # longer than the trainer's, whose silence they notice otherwise
            limit = Deadline(TIMEOUT_S if fault is None else seconds(60))
            buffer = inlet.receive(BYTES - n, f"round 1 policy bucket {n}/{BUCKETS}", limit)
            assert (buffer == n).all()
        inlet.release()
    except Exception as error:
        inlet.fail(str(error))
        error.args = (str(error), time.monotonic() - begin)
        raise
    return time.monotonic() - begin


def peer(number: int, fault: int | None, connection: Connection, device: str) -> None:
    """One process of the round."""
    import torch

    torch.set_num_threads(1)
    try:
        took_s = (
            trainer(connection, fault, device) if number == 0 else worker(connection, number, fault, device)
        )
        end = End(took_s, "", "", [])
    except Exception as error:
        message, took_s = error.args
        end = End(took_s, type(error).__name__, message, [])
    connection.send(End(end.seconds, end.error, end.message, kept()))
    connection.recv()


def run(faults: Faults, device: str = "cpu") -> dict[int, End]:
    """A round of three processes on one device, and how those that can tell left it."""
    context = forking()
    pipes = [context.Pipe() for _ in range(3)]
    processes = [
        context.Process(target=peer, args=(number, faults.get(number), pipes[number][1], device), daemon=True)
        for number in range(3)
    ]
    ends = {}
    try:
        for process in processes:
            process.start()
        trainers, *workers = (ours for ours, _ in pipes)
        assert trainers.poll(seconds(60))
        address = trainers.recv()
        for ours in workers:
            ours.send(address)
        assert all(ours.poll(seconds(60)) and ours.recv() for ours in workers)
        trainers.send("go")
        for number, (ours, _) in enumerate(pipes):
            if faults.get(number, GIVES_UP) == GIVES_UP:
                assert ours.poll(seconds(60)), f"process {number} hangs"
                ends[number] = ours.recv()
    finally:
        for process in processes:
            process.kill()
            process.join()
    return ends


def assert_ended_in_time_and_clean(ends: dict[int, End]) -> None:
    """Everyone who could tell got an error in time, and holds no memory of the round any more."""
    for number, end in ends.items():
        assert end.error, number
        assert end.seconds < TIMEOUT_S + SLACK_S, (number, end)
        assert end.kept == [], number
