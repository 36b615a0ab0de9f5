"""Before the first round: what engines hold is compared, and every rank has come."""

import time

import pytest
import torch

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync import opening
from openrlhf_mtp.sync.errors import ManifestMismatch, SyncError, SyncTimeout
from openrlhf_mtp.sync.opening import open_sync
from openrlhf_mtp.sync.transport import Place, machine
from tests.patience import seconds
from tests.unit.sync.fakes import Start, source

SLACK_S = seconds(6)  # beyond a timeout: asking the store who is missing, and a loaded machine


def test_differing_manifests_are_listed_for_every_engine_before_anything_is_opened(start: Start):
    job = start(engines=2, is_open=False)
    del job.policy["policy.0.weight"]
    job.policy["policy.1.weight"] = torch.zeros(4, 8)
    with pytest.raises(ManifestMismatch) as error:
        job.open()
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
        job.open()


def test_an_engine_that_drafts_with_a_head_nobody_sends_is_refused(start: Start):
    job = start(is_open=False)
    with pytest.raises(ManifestMismatch, match="engine 0: drafts with a head that the trainer does not send"):
        open_sync(job.engines, SyncSettings(), source(job.policy), None)


def test_every_worker_of_every_engine_has_a_rank_of_its_own(start: Start):
    job = start(engines=3, is_open=False, timeout_s=seconds(0.5))
    for engine in job.engines:
        engine.places, engine.joins = 2 * engine.places, False
    with pytest.raises(SyncError):
        job.open()
    given = [engine.init_info for engine in job.engines]
    assert [(info["rank_offset"], info["rendezvous"]["world_size"]) for info in given] == [
        (1, 7),
        (3, 7),
        (5, 7),
    ]


def test_a_worker_that_shares_the_trainers_gpu_is_seen_wherever_it_is(start: Start, monkeypatch):
    asked = []

    def choose(requested: str, ranks: list[Place], workers: list[Place]) -> str:
        asked.append((requested, ranks, [place.device for place in workers]))
        raise ConnectionAbortedError

    monkeypatch.setattr(opening, "choose_backend", choose)
    job = start(engines=2, is_open=False)
    for number, engine in enumerate(job.engines):
        engine.places = [Place(machine(), device) for device in (f"gpu-{number}", "gpu-7")]
    with pytest.raises(ConnectionAbortedError):
        job.open()
    here = [Place.of(torch.device("cpu"))]
    assert asked == [("gloo", here, ["gpu-0", "gpu-7", "gpu-1", "gpu-7"])]


@pytest.mark.parametrize(("limit_s", "comes"), [(10.0, True), (0.1, False)])
def test_an_engine_that_still_loads_its_model_has_longer_than_a_round(
    start: Start, limit_s: float, comes: bool
):
    job = start(is_open=False, timeout_s=2.0, start_timeout_s=limit_s)
    job.engines[0].loads_for_s = 2.2
    if comes:
        job.open()
        return
    with pytest.raises(SyncTimeout, match=r"sync_manifest: no answer from engine 0 within 0\.1 s"):
        job.open()


def test_an_engine_that_never_joins_is_named(start: Start):
    job = start(engines=2, is_open=False, timeout_s=seconds(1.0))
    job.engines[1].joins = False  # the other engine may notice first; its error names the same rank
    begin = time.monotonic()
    with pytest.raises(SyncError, match=r"joining the group: .*rank 2 never joined"):
        job.open()
    assert time.monotonic() - begin < seconds(1.0) + SLACK_S
