"""The trainer's side against engines without vLLM; transport, buckets and digests are the real ones."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.errors import ManifestMismatch, StaleWeights, SyncError, SyncTimeout
from openrlhf_mtp.sync.sender import WeightSync
from tests.patience import seconds
from tests.unit.sync.fakes import FakeEngine, random_tensors, source

SLACK_S = seconds(6)  # beyond a timeout: asking the store who is missing, and a loaded machine


@dataclass
class Job:
    policy: dict[str, Tensor]
    head: dict[str, Tensor]
    engines: list[FakeEngine]
    sync: WeightSync


Start = Callable[..., Job]


@pytest.fixture
def start() -> Iterator[Start]:
    jobs: list[Job] = []

    def start_job(*, engines: int = 1, count: int = 3, is_open: bool = True, **settings: float) -> Job:
        policy, head = random_tensors("policy", count), random_tensors("head", 2, seed=1)
        fakes = [FakeEngine(source(policy), source(head)) for _ in range(engines)]
        values = {"timeout_s": seconds(20), "bucket_mib": 1, **settings}
        sync = WeightSync(fakes, SyncSettings.model_validate(values), source(policy), source(head))
        job = Job(policy, head, fakes, sync)
        jobs.append(job)
        if is_open:
            sync.open()
        return job

    yield start_job
    for job in jobs:
        job.sync.close()


def change(tensors: dict[str, Tensor]) -> None:
    for tensor in tensors.values():
        tensor += 1.0


def test_every_engine_gets_policy_and_head_each_round(start: Start):
    job = start(engines=2)
    for _ in range(2):
        change(job.policy)
        change(job.head)
        job.sync.round()
        for engine in job.engines:
            for name, tensor in {**job.policy, **job.head}.items():
                assert torch.equal(engine.weights[name], tensor)


@pytest.mark.parametrize("count", [3, 300])
def test_a_round_is_one_call_per_engine_however_many_parameters(start: Start, count: int):
    job = start(engines=2, count=count)
    report = job.sync.round()
    assert report is not None
    assert (report.rpc_calls, report.buckets, report.verified) == (2, 2, True)
    assert report.bytes == (count + 2) * 8 * 4 * 4
    assert all(engine.calls == ["sync_manifest", "sync_init", "sync_round"] for engine in job.engines)
    assert 0 < report.pack_s + report.broadcast_s + report.engine_s <= report.seconds


def test_verification_follows_its_interval(start: Start):
    every_second, never = start(verify_every=2), start(verify_every=0)
    assert [every_second.sync.round().verified for _ in range(4)] == [True, False, True, False]
    assert [never.sync.round().verified for _ in range(2)] == [False, False]


def test_an_engine_that_keeps_an_old_weight_is_found_and_the_weight_named(start: Start):
    job = start(engines=2)
    job.sync.round()
    change(job.head)
    job.engines[1].keeps_old.add("head.1.weight")
    with pytest.raises(StaleWeights) as error:
        job.sync.round()
    assert str(error.value).splitlines()[1:] == [
        "  engine 1 head: head.1.weight (layer head.1.weight, worker 0)"
    ]


def test_a_tensor_damaged_in_transit_is_named(start: Start, monkeypatch: pytest.MonkeyPatch):
    job = start()
    broadcast = job.sync._broadcaster.broadcast

    def damage(buffer: Tensor, place: str, *args: object) -> None:
        if "head" in place:
            buffer[130] ^= 4  # the second tensor begins at byte 128
        broadcast(buffer, place, *args)

    monkeypatch.setattr(job.sync._broadcaster, "broadcast", damage)
    with pytest.raises(
        SyncError, match=r"sync_round failed in engine 0: damaged in transit: head\.1\.weight$"
    ):
        job.sync.round()


def test_differing_manifests_are_listed_for_every_engine_before_anything_is_opened(start: Start):
    job = start(engines=2, is_open=False)
    del job.policy["policy.0.weight"]
    job.policy["policy.1.weight"] = torch.zeros(4, 8)
    sync = WeightSync(job.engines, SyncSettings(), source(job.policy), source(job.head))
    with pytest.raises(ManifestMismatch) as error:
        sync.open()
    lines = str(error.value).splitlines()[1:]
    assert lines == [
        f"  engine {i} policy: policy.{line}"
        for i in range(2)
        for line in (
            "0.weight: missing in the trainer",
            "1.weight: shape [4, 8] in the trainer, [8, 4] in the engine",
        )
    ]
    assert all(engine.calls == ["sync_manifest"] for engine in job.engines)


def test_a_head_for_an_engine_without_draft_is_refused(start: Start):
    job = start(is_open=False)
    del job.engines[0].manifests["head"]
    with pytest.raises(ManifestMismatch, match="engine 0: has no draft model for the head"):
        job.sync.open()


def test_an_engine_that_drafts_with_a_head_nobody_sends_is_refused(start: Start):
    job = start(is_open=False)
    sync = WeightSync(job.engines, SyncSettings(), source(job.policy), None)
    with pytest.raises(ManifestMismatch, match="engine 0: drafts with a head that the trainer does not send"):
        sync.open()


def test_every_worker_of_every_engine_has_a_rank_of_its_own(start: Start):
    job = start(engines=3, is_open=False, timeout_s=seconds(0.5))
    for engine in job.engines:
        engine.workers, engine.joins = 2, False
    with pytest.raises(SyncError):
        job.sync.open()
    given = [engine.init_info for engine in job.engines]
    assert [(info["rank_offset"], info["world_size"]) for info in given] == [(1, 7), (3, 7), (5, 7)]


@pytest.mark.parametrize(("limit_s", "comes"), [(10.0, True), (0.1, False)])
def test_an_engine_that_still_loads_its_model_has_longer_than_a_round(
    start: Start, limit_s: float, comes: bool
):
    job = start(is_open=False, timeout_s=2.0, start_timeout_s=limit_s)
    job.engines[0].loads_for_s = 2.2
    if comes:
        job.sync.open()
        return
    with pytest.raises(SyncTimeout, match=r"sync_manifest: no answer from engine 0 within 0\.1 s"):
        job.sync.open()


def test_an_engine_that_fails_ends_the_round_at_once(start: Start):
    """While the trainer waits in a broadcast for the other engine."""
    job = start(engines=2)
    job.engines[0].before_round = lambda: 1 / 0
    begin = time.monotonic()
    with pytest.raises(SyncError, match="sync_round failed in engine 0: division by zero"):
        job.sync.round()
    assert time.monotonic() - begin < seconds(5)
    with pytest.raises(SyncError, match="does not survive a failed round"):
        job.sync.round()


def test_an_engine_that_stalls_ends_the_round_within_the_timeout_and_is_named(start: Start):
    job = start(engines=2, timeout_s=seconds(1.0))
    job.sync.round()
    release = threading.Event()
    job.engines[1].before_round = lambda: release.wait(seconds(10))
    begin = time.monotonic()
    with pytest.raises(SyncTimeout) as error:
        job.sync.round()
    release.set()
    assert time.monotonic() - begin < seconds(1.0) + SLACK_S
    # small buckets fit into socket buffers, so the trainer may be waiting for the answer already
    assert "engine 1" in str(error.value)


def test_an_engine_that_never_joins_is_named(start: Start):
    job = start(engines=2, is_open=False, timeout_s=seconds(1.0))
    job.engines[1].joins = False  # the other engine may notice first; its error names the same rank
    begin = time.monotonic()
    with pytest.raises(SyncError, match=r"joining the group: .*rank 2 never joined"):
        job.sync.open()
    assert time.monotonic() - begin < seconds(1.0) + SLACK_S


def test_a_weight_that_is_not_finite_is_not_sent(start: Start):
    job = start()
    job.policy["policy.1.weight"][3, 2] = torch.inf
    with pytest.raises(ValueError, match=r"policy\.1\.weight holds NaN or infinite values"):
        job.sync.round()
    assert job.engines[0].weights == {}


def test_a_source_that_grows_is_refused(start: Start):
    job = start()
    job.policy["policy.new"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"policy\.new came after the last tensor"):
        job.sync.round()


def test_other_trainer_ranks_run_through_their_sources_and_send_nothing(start: Start):
    job = start(is_open=False)
    gathered = []

    def gather() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in job.policy.items():
            gathered.append(name)
            yield name, tensor

    policy = source(job.policy)
    sync = WeightSync(job.engines, SyncSettings(), type(policy)(policy.manifest, gather), None, rank=1)
    sync.open()
    assert sync.round() is None
    assert gathered == list(job.policy)
    assert job.engines[0].calls == []
