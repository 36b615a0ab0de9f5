"""Rounds against engines without vLLM: what arrives, what is checked, and how a round ends that fails."""

import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync.doors import Door
from openrlhf_mtp.sync.errors import StaleWeights, SyncError, SyncTimeout
from openrlhf_mtp.sync.opening import open_sync
from openrlhf_mtp.sync.sender import OtherRank
from tests.patience import seconds
from tests.unit.sync.fakes import Start, source

SLACK_S = seconds(6)  # beyond a timeout: asking the store who is missing, and a loaded machine


@pytest.fixture(params=["gloo", "ipc"])
def start(start: Start, request: pytest.FixtureRequest) -> Start:
    """Every job here once over each transport of a host without CUDA."""
    return partial(start, backend=request.param)


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


def test_a_tensor_larger_than_a_bucket_arrives_whole_and_no_buffer_is_larger_than_one(start: Start):
    job = start(engines=2, is_open=False)
    job.policy["policy.big.weight"] = torch.randn(700, 500)
    for engine in job.engines:
        engine.manifests["policy"] = source(job.policy).manifest
    job.open()
    report = job.sync.round()
    assert report is not None
    assert (report.buckets, report.verified) == (4, True), "small ones, the large one in two, the head"
    assert all(
        torch.equal(e.weights["policy.big.weight"], job.policy["policy.big.weight"]) for e in job.engines
    )
    assert max(size for engine in job.engines for size in engine.received) <= 1 << 20


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


def test_what_a_trial_found_in_a_worker_ends_the_round_with_its_words(start: Start):
    job = start(engines=2)
    job.engines[1].tried = {"policy": ["layers.3.experts: expert 7: not what arrived"], "head": []}
    with pytest.raises(StaleWeights) as error:
        job.sync.round()
    assert str(error.value).splitlines()[1:] == [
        "  engine 1 policy: layers.3.experts: expert 7: not what arrived (worker 0)"
    ]


def test_a_tensor_damaged_in_transit_is_named(start: Start, monkeypatch: pytest.MonkeyPatch):
    job = start()
    send = job.sync._outlet.send

    def damage(buffer: Tensor, place: str, *args: object) -> None:
        if "head" in place:
            buffer[130] ^= 4  # the second tensor begins at byte 128
        send(buffer, place, *args)

    monkeypatch.setattr(job.sync._outlet, "send", damage)
    with pytest.raises(
        SyncError, match=r"sync_round failed in engine 0: damaged in transit: head\.1\.weight$"
    ):
        job.sync.round()


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
    door, first = Door(torch.device("cpu"), rank=1), Door(torch.device("cpu"))
    sync = open_sync(
        job.engines,
        SyncSettings(),
        type(policy)(policy.manifest, gather),
        None,
        door=door,
        cards=(first.card, door.card),
    )
    assert isinstance(sync, OtherRank)
    assert sync.round() is None
    assert gathered == list(job.policy)
    assert job.engines[0].calls == []
    sync.close()
    first.close()
