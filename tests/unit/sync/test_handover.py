"""Buckets in shared memory between threads; processes that die are in tests/engine/test_handover_failures.py."""

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.doors import Door, knock, wait_for_one
from openrlhf_mtp.sync.errors import StaleWeights, SyncError, SyncTimeout
from openrlhf_mtp.sync.opening import open_sync
from openrlhf_mtp.sync.sender import OtherRank, Sender
from openrlhf_mtp.sync.shared_memory import NAME, SharedMemory, attach
from openrlhf_mtp.sync.waiting import Deadline
from tests.patience import seconds
from tests.unit.sync.fakes import FakeEngine, random_tensors, source

CPU = torch.device("cpu")
SETTINGS = SyncSettings.model_validate({"backend": "ipc", "bucket_mib": 1, "timeout_s": seconds(20)})


def held() -> int:
    """Mappings and open files of the sync's shared memory in this process."""
    files = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sum(f"memfd:{NAME}" in text for text in (*files, *maps))


def test_two_processes_mappings_see_one_memory_which_ends_with_its_last_user():
    assert held() == 0
    owner = SharedMemory(1 << 20, CPU)
    handle, file = owner.share()
    assert file is not None
    other = attach(handle, os.dup(file), CPU)
    owner.tensor[17] = 5
    assert other[17] == 5
    assert held() == 3, "two mappings and the owner's file"
    owner.close()
    assert other[17] == 5
    del other
    assert held() == 0


class Job:
    """As many trainer ranks as engines, each with weights of its own that ought to be equal."""

    def __init__(self, ranks: int, engines: int) -> None:
        self.weights = [random_tensors("policy", 3) for _ in range(ranks)]
        self.engines = [FakeEngine(source(self.weights[0]), None) for _ in range(engines)]
        doors = [Door(CPU, rank) for rank in range(ranks)]
        cards = [door.card for door in doors]
        self.syncs: list[Sender | OtherRank] = [
            open_sync(
                self.engines if rank == 0 else [], SETTINGS, source(weights), None, door=door, cards=cards
            )
            for rank, (weights, door) in reversed(list(enumerate(zip(self.weights, doors, strict=True))))
        ][::-1]
        self._pool = ThreadPoolExecutor(ranks)

    def round(self) -> list[Future[object]]:
        """Every rank's part of a round, until all are over."""
        parts: list[Future[object]] = [self._pool.submit(sync.round) for sync in self.syncs]
        for part in parts:
            part.exception()
        return parts

    def close(self) -> None:
        for sync in self.syncs:
            sync.close()


@pytest.fixture
def job(request: pytest.FixtureRequest) -> Iterator[Job]:
    made = Job(*request.param)
    yield made
    made.close()


@pytest.mark.parametrize("job", [(2, 2), (2, 1), (1, 3), (2, 4)], indirect=True)
def test_every_engine_gets_the_weights_whoever_serves_it_and_memory_lives_as_long_as_a_round(job: Job):
    for _ in range(2):
        for weights in job.weights:
            for tensor in weights.values():
                tensor += 1
        assert [part.exception() for part in job.round()] == [None] * len(job.syncs)
        for engine in job.engines:
            assert all(torch.equal(engine.weights[name], t) for name, t in job.weights[0].items())
        assert held() == 0


@pytest.mark.parametrize("job", [(2, 2)], indirect=True)
def test_a_rank_serves_the_engine_on_its_own_device_and_rank_0_finds_weights_that_are_not_its_own(job: Job):
    job.weights[1]["policy.2.weight"] += 1
    failure, other = (part.exception() for part in job.round())
    assert other is None
    assert isinstance(failure, StaleWeights)
    assert str(failure).splitlines()[1:] == [
        "  engine 1 policy: policy.2.weight (layer policy.2.weight, worker 0)"
    ]


@pytest.mark.parametrize("job", [(2, 2)], indirect=True)
def test_a_rank_that_fails_ends_the_round_of_all_by_name(job: Job):
    job.weights[1]["policy.1.weight"][0, 0] = torch.nan
    first, second = (part.exception() for part in job.round())
    assert "policy.1.weight holds NaN or infinite values" in str(second)
    assert isinstance(first, SyncError)
    assert "engine 1" in str(first)
    assert "another rank gave up: sync trainer rank 1 (ipc): policy.1.weight holds NaN" in str(first)


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door(CPU)
    made.open("secret")
    yield made
    made.close()


def test_a_stranger_is_not_let_in_and_holds_nobody_up(door: Door):
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(door.card.address)
    with pytest.raises((SyncError, SyncTimeout), match="cannot reach trainer rank 0"):
        knock(0, door.card.address, "guessed", "a stranger", Deadline(seconds(5)))
    line = knock(0, door.card.address, "secret", "engine 0 worker 0", Deadline(seconds(5)))
    assert [one.peer for one in door.lines] == ["engine 0 worker 0"]
    line.close()
    silent.close()


def test_a_door_that_is_shut_or_never_was_is_named(door: Door):
    door.close()
    begin = time.monotonic()
    with pytest.raises(
        SyncError, match="sync engine 0 worker 0: cannot reach trainer rank 0 on this machine"
    ):
        knock(0, door.card.address, "secret", "engine 0 worker 0", Deadline(seconds(5)))
    assert time.monotonic() - begin < seconds(5)


def test_a_rank_that_does_not_open_is_waited_for_as_long_as_the_limit_says():
    shut = Door(CPU)
    with pytest.raises(SyncTimeout, match=r"trainer rank 0 does not let it in within 0\.2 s"):
        knock(0, shut.card.address, "secret", "engine 0 worker 0", Deadline(0.2))
    shut.close()


def test_whoever_speaks_to_one_that_has_given_up_hears_why(door: Door):
    """Its last words are there although it does not listen any more."""
    line = knock(0, door.card.address, "secret", "engine 0 worker 0", Deadline(seconds(5)))
    (trainers,) = door.lines
    trainers.say(gave_up="out of patience")
    trainers.close()
    with pytest.raises(SyncError, match="another rank gave up: out of patience"):
        line.say(taken="bucket 1")
    line.close()
    with pytest.raises(SyncError, match="the sync is closed"):
        wait_for_one([line], Deadline(seconds(5)))


def test_weights_that_are_taken_stay_when_the_next_bucket_is_packed(door: Door):
    """A receiver gets memory of its own: layers keep it until they are complete."""
    from openrlhf_mtp.sync.handover import Handover, Taker

    outlet, taken = Handover(door), list[Tensor]()
    with ThreadPoolExecutor(1) as pool:
        taker = Taker(knock(0, door.card.address, "secret", "w", Deadline(seconds(5))), "w", CPU)
        limit = Deadline(seconds(5))
        work = pool.submit(lambda: taken.extend(taker.receive(8, f"bucket {n}", limit) for n in (1, 2)))
        memory = outlet.begin(8)
        for n in (1, 2):
            outlet.send(memory.fill_(n), f"bucket {n}", limit)
        work.result()
    assert [buffer.tolist() for buffer in taken] == [[1] * 8, [2] * 8]
