"""The NCCL transport between two GPUs: the same broadcasts, and a peer that stops ends them in time."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

import pytest

from tests.conftest import cuda_gpus
from tests.patience import seconds

pytestmark = pytest.mark.skipif(cuda_gpus() < 2, reason="needs two CUDA GPUs: NCCL refuses two ranks on one")

TIMEOUT_S, SLACK_S = seconds(5.0), seconds(5.0)
BUCKETS, FAULT_AT = 4, 3


def peer(rank: int, stops: bool, connection: Connection) -> None:
    """Rank 0 sends bucket n filled with n; the other checks it, or stops itself before bucket FAULT_AT."""
    import torch

    from openrlhf_mtp.sync.errors import SyncError
    from openrlhf_mtp.sync.group import SyncGroup
    from openrlhf_mtp.sync.store import Rendezvous, serve_store
    from openrlhf_mtp.sync.waiting import Deadline

    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    store = serve_store("127.0.0.1", seconds(60)) if rank == 0 else None
    if store is not None:
        connection.send(store.port)
    port = connection.recv()
    role = "trainer" if rank == 0 else "engine 0 worker 0"
    at = Rendezvous("127.0.0.1", port, "secret", 2, "nccl", seconds(60))
    group = SyncGroup(at, rank, role, device=device, store=store)
    begin = time.monotonic()
    try:
        for number in range(1, BUCKETS + 1):
            if stops and number == FAULT_AT:
                os.kill(os.getpid(), signal.SIGSTOP)
            begin = time.monotonic()
            buffer = torch.full(
                (64 << 20,), number if rank == 0 else 0, dtype=torch.uint8, device=group.device
            )
            group.broadcast(buffer, f"bucket {number}/{BUCKETS}", Deadline(TIMEOUT_S))
            assert (buffer == number).all()
        message = ""
    except SyncError as error:
        message = str(error)
    connection.send((time.monotonic() - begin, message))
    connection.recv()


@pytest.mark.parametrize("stops", [False, True], ids=["healthy", "the engine stops"])
def test_nccl_broadcasts_and_ends_in_time(stops: bool):
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=peer, args=(rank, stops and rank == 1, pipes[rank][1]), daemon=True)
        for rank in range(2)
    ]
    try:
        for process in processes:
            process.start()
        port = pipes[0][0].recv()
        for ours, _ in pipes:
            ours.send(port)
        assert pipes[0][0].poll(seconds(120)), "the trainer hangs"
        took_s, message = pipes[0][0].recv()
        if not stops:
            assert message == ""
            return
        assert took_s < TIMEOUT_S + SLACK_S
        assert f"bucket {FAULT_AT}/{BUCKETS}: " in message
        assert "rank 1 (engine 0 worker 0) is at: bucket 2/4" in message
    finally:
        for process in processes:
            process.kill()
            process.join()
