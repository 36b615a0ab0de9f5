"""A peer that never comes, dies or stops ends the round of every other process in time, with its rank and the bucket.

Real processes over gloo: one trainer (rank 0) and two engine workers, six buckets, the fault before the fourth.
"""

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import pytest

from tests.patience import seconds
from tests.processes import forking

TIMEOUT_S = seconds(3.0)
SLACK_S = seconds(8.0)  # a second to ask who is missing, and a loaded machine
BUCKETS, FAULT_AT = 6, 4
BUCKET_BYTES = 20_000_000  # more than sockets buffer, so that the sender notices a receiver that stopped


@dataclass(frozen=True)
class End:
    """How one process left the round: seconds in its last wait, the error's type and text (empty: none)."""

    seconds: float
    error: str
    message: str


def peer(rank: int, port: int, fault: int | None, connection: Connection) -> None:
    """One process of the round; `fault` is a signal that it sends itself before bucket FAULT_AT."""
    import torch

    from openrlhf_mtp.sync import rank_notes
    from openrlhf_mtp.sync.errors import SyncError
    from openrlhf_mtp.sync.group import SyncGroup
    from openrlhf_mtp.sync.store import Rendezvous, serve_store
    from openrlhf_mtp.sync.waiting import Deadline

    torch.set_num_threads(1)
    rank_notes.DIAGNOSIS_S = seconds(rank_notes.DIAGNOSIS_S)
    store = serve_store("127.0.0.1", seconds(60)) if rank == 0 else None
    if store is not None:
        connection.send(store.port)
        port = store.port
        connection.recv()  # the others have imported torch and are about to join
    else:
        connection.send("ready")
        connection.recv()
    role = "trainer" if rank == 0 else f"engine {rank - 1} worker 0"
    begin = time.monotonic()
    try:
        join_s = TIMEOUT_S if fault == 0 else seconds(60)
        at = Rendezvous("127.0.0.1", port, "secret", 3, "gloo", join_s)
        group = SyncGroup(at, rank, role, store=store)
        for number in range(1, BUCKETS + 1):
            if fault and number == FAULT_AT:
                os.kill(os.getpid(), fault)
            begin = time.monotonic()
            buffer = torch.full((BUCKET_BYTES,), number if rank == 0 else 0, dtype=torch.uint8)
            group.broadcast(buffer, f"round 1 policy bucket {number}/{BUCKETS}", Deadline(TIMEOUT_S))
            assert (buffer == number).all()
        end = End(time.monotonic() - begin, "", "")
    except SyncError as error:
        end = End(time.monotonic() - begin, type(error).__name__, str(error))
    connection.send(end)
    connection.recv()  # the store lives as long as this process


def run(faults: dict[int, int | None]) -> dict[int, End]:
    """Start the ranks in `faults`; signal 0 means "expect that somebody never joins"."""
    context = forking()
    pipes = {rank: context.Pipe() for rank in faults}
    processes = {}
    try:
        port = 0
        for rank, fault in faults.items():  # rank 0 comes first and tells its port
            ours, theirs = pipes[rank]
            processes[rank] = context.Process(target=peer, args=(rank, port, fault, theirs), daemon=True)
            processes[rank].start()
            assert ours.poll(seconds(60))
            port = ours.recv() if rank == 0 else (ours.recv() and port)
        for ours, _ in pipes.values():
            ours.send("go")
        ends = {}
        for rank, fault in faults.items():
            if not fault:
                assert pipes[rank][0].poll(seconds(60)), f"rank {rank} hangs"
                ends[rank] = pipes[rank][0].recv()
        return ends
    finally:
        for process in processes.values():
            process.kill()
            process.join()


def assert_ended_in_time(ends: dict[int, End]) -> None:
    for rank, end in ends.items():
        assert end.error in ("SyncTimeout", "SyncError"), (rank, end)
        assert end.seconds < TIMEOUT_S + SLACK_S, (rank, end)


def test_a_round_without_fault_ends_well():
    ends = run({0: None, 1: None, 2: None})
    assert [end.error for end in ends.values()] == ["", "", ""]


def test_a_worker_that_never_joins_is_named_by_all():
    ends = run({0: 0, 1: 0})
    assert_ended_in_time(ends)
    assert "rank 2 never joined" in ends[0].message
    assert ends[0].seconds >= TIMEOUT_S


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_worker_that_dies_or_stalls_is_named_with_its_bucket(fault: signal.Signals):
    ends = run({0: None, 1: fault, 2: None})
    assert_ended_in_time(ends)
    for end in ends.values():
        assert "rank 1 (engine 0 worker 0) is at: round 1 policy bucket 3/6" in end.message
    assert ends[0].message.startswith("sync trainer (rank 0 of 3, gloo): round 1 policy bucket 4/6: ")


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_trainer_that_dies_or_stalls_is_named_by_the_workers(fault: signal.Signals):
    ends = run({0: fault, 1: None, 2: None})
    assert_ended_in_time(ends)
    for rank, end in ends.items():
        assert f"(rank {rank} of 3, gloo): round 1 policy bucket 4/6: " in end.message
        assert "rank 0 (trainer), which serves the store," in end.message
