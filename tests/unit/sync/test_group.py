"""Broadcasts between threads; peers that die or stop are in tests/engine/test_sync_failures.py."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from openrlhf_mtp.sync.errors import SyncError, SyncTimeout
from openrlhf_mtp.sync.group import SyncGroup
from openrlhf_mtp.sync.store import Rendezvous, serve_store
from openrlhf_mtp.sync.waiting import Deadline
from tests.patience import seconds


def group(pool: ThreadPoolExecutor, size: int, timeout_s: float = seconds(10)) -> list[SyncGroup]:
    store = serve_store("127.0.0.1", timeout_s)
    at = Rendezvous("127.0.0.1", store.port, "secret", size, "gloo", timeout_s)

    def join(rank: int) -> SyncGroup:
        role = "trainer" if rank == 0 else f"engine {rank - 1} worker 0"
        own = store if rank == 0 else None
        return SyncGroup(at, rank, role, store=own)

    joined: list[Future[SyncGroup]] = [pool.submit(join, rank) for rank in range(size)]
    return [future.result() for future in joined]


def test_all_ranks_receive_what_rank_0_sends():
    with ThreadPoolExecutor(3) as pool:
        ranks = group(pool, 3)
        sent = torch.arange(100_000, dtype=torch.uint8)
        buffers = [sent.clone(), torch.zeros_like(sent), torch.zeros_like(sent)]
        list(
            pool.map(lambda b, x: b.broadcast(x, "round 1 bucket 1/1", Deadline(seconds(5))), ranks, buffers)
        )
        assert all(torch.equal(buffer, sent) for buffer in buffers)
        for rank in ranks:
            rank.close()


def test_a_receiver_without_sender_gives_up_in_time_and_says_where_the_sender_is():
    with ThreadPoolExecutor(2) as pool:
        _, receiver = group(pool, 2)
        begin = time.monotonic()
        with pytest.raises(SyncTimeout) as error:
            receiver.broadcast(torch.zeros(4, dtype=torch.uint8), "round 1 bucket 2/7", Deadline(0.3))
        assert time.monotonic() - begin < seconds(5)
        assert str(error.value) == (
            "sync engine 0 worker 0 (rank 1 of 2, gloo): round 1 bucket 2/7: nothing within 0.3 s;"
            " rank 0 (trainer) is at: joining the group"
        )


def test_a_rank_that_has_left_says_no_more():
    """A worker's failed broadcast has named the fault already; what its worker then says of it is no news."""
    with ThreadPoolExecutor(2) as pool:
        trainer, receiver = group(pool, 2)
        receiver.fail("bucket 3/7 is damaged")
        receiver.fail("a worker ended")
        with pytest.raises(SyncError, match=r"gave up: sync engine 0 worker 0.*: bucket 3/7 is damaged"):
            trainer.broadcast(torch.zeros(4, dtype=torch.uint8), "round 1 bucket 4/7", Deadline(seconds(5)))


def test_a_rank_that_gives_up_ends_the_wait_of_the_others_before_their_timeout():
    with ThreadPoolExecutor(2) as pool:
        trainer, receiver = group(pool, 2)
        threading.Timer(0.2, trainer.fail, ["engine 7 is on fire"]).start()
        begin = time.monotonic()
        with pytest.raises(
            SyncError, match=r"another rank gave up: sync trainer .rank 0 of 2, gloo.: engine 7 is on fire"
        ):
            receiver.broadcast(torch.zeros(4, dtype=torch.uint8), "round 1 bucket 1/1", Deadline(seconds(60)))
        assert time.monotonic() - begin < seconds(5)


def test_a_watch_that_raises_ends_the_wait_at_once():
    def watch() -> None:
        raise SyncError("an engine failed")

    with ThreadPoolExecutor(2) as pool:
        _, receiver = group(pool, 2)
        with pytest.raises(SyncError, match="an engine failed"):
            receiver.broadcast(torch.zeros(4, dtype=torch.uint8), "bucket", Deadline(seconds(60)), watch)
        with pytest.raises(SyncError, match="the sync group is closed"):
            receiver.broadcast(torch.zeros(4, dtype=torch.uint8), "bucket", Deadline(seconds(60)))
