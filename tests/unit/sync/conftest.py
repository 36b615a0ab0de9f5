"""Trainers without a model and engines without vLLM; transport, buckets and digests are the real ones."""

from collections.abc import Iterator

import pytest

from openrlhf_mtp.config.settings.mtp import SyncSettings
from openrlhf_mtp.sync import rank_notes
from tests.patience import seconds
from tests.unit.sync.fakes import FakeEngine, Job, Start, random_tensors, source


@pytest.fixture(autouse=True)
def patient_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that dies may look for who is missing as long as this machine needs."""
    monkeypatch.setattr(rank_notes, "DIAGNOSIS_S", seconds(rank_notes.DIAGNOSIS_S))


@pytest.fixture
def start() -> Iterator[Start]:
    jobs: list[Job] = []

    def start_job(
        *, engines: int = 1, count: int = 3, is_open: bool = True, backend: str = "gloo", **settings: float
    ) -> Job:
        policy, head = random_tensors("policy", count), random_tensors("head", 2, seed=1)
        fakes = [FakeEngine(source(policy), source(head)) for _ in range(engines)]
        values = {"timeout_s": seconds(20), "bucket_mib": 1, "backend": backend, **settings}
        job = Job(policy, head, fakes, SyncSettings.model_validate(values))
        jobs.append(job)
        if is_open:
            job.open()
        return job

    yield start_job
    for job in jobs:
        if job.is_open:
            job.sync.close()
