"""What a rank can say of the others when its wait ends."""

import torch.distributed as dist

from openrlhf_mtp.sync.rank_notes import RankNotes
from openrlhf_mtp.sync.waiting import Deadline
from tests.patience import seconds


def two_ranks() -> tuple[RankNotes, RankNotes]:
    store = dist.HashStore()
    return RankNotes(store, 0, 2, "trainer"), RankNotes(store, 1, 2, "engine 0 worker 0")


def arrive(notes: RankNotes, place: str) -> None:
    assert notes.arrive(place, Deadline(seconds(5)))


def test_a_rank_that_never_came_and_one_that_is_behind_are_named() -> None:
    trainer, worker = two_ranks()
    arrive(trainer, "joining the group")
    assert not trainer.has_everyone_joined(Deadline(seconds(5)))
    assert trainer.missing() == "rank 1 never joined"
    arrive(worker, "joining the group")
    assert trainer.has_everyone_joined(Deadline(seconds(5)))
    arrive(trainer, "round 1 policy bucket 1/2")
    assert trainer.missing() == "rank 1 (engine 0 worker 0) is at: joining the group"
    assert worker.missing() == "every rank arrived here, so one of them stalled in the transfer itself"


def test_who_gave_up_comes_first() -> None:
    trainer, worker = two_ranks()
    arrive(trainer, "joining the group")
    worker.failure.set("engine 0 is on fire")
    assert trainer.failure.reason() == "engine 0 is on fire"
    assert trainer.missing() == "another rank gave up: engine 0 is on fire; rank 1 never joined"
