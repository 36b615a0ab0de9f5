"""`helm test` beside a run, and `helm upgrade` that continues in its folder, on a real API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from helm.engine import merged
from tests.cluster.api import until
from tests.cluster.installed import Cluster
from tests.cluster.runs import LONG, reached, rows, steps, tiny_job, values, volume

STEPS = 60


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_run_is_tested_while_it_trains_and_continues_after_an_upgrade(
    cluster: Cluster, assets: Path
) -> None:
    folder = volume(cluster, assets, "upgraded")
    job = tiny_job(merged(LONG, {"train": {"num_episodes": STEPS // 3}}))
    small = values(cluster, {"job": {"config": job, "gracePeriodSeconds": 120}})
    with cluster.release("upgraded", small) as first:
        until("three steps", lambda: reached(folder, 3), 600, 0.2)
        cluster.helm().test("upgraded", 300)
        before = rows(folder)
        assert len(before) < STEPS, "the run ended before it could be upgraded"
        second = cluster.upgrade("upgraded", merged(small, {"pods": {"memory": "7Gi"}}))
        assert second != first
        assert cluster.job_ended(f"{second}-submitter", 600) == "Complete", cluster.kubelet.log_of(second)
        until("the first run's pods gone", lambda: not cluster.pods_of(first), 120)
    # in one folder, each step once, and none up to a checkpoint of the first run again
    assert steps(folder) == list(range(STEPS + 1))
    saved = (len(before) - 1) // 2 * 2
    assert rows(folder)[: saved + 1] == before[: saved + 1]
    cluster.finish("upgraded")
