"""ci/e2e.py, which ci/kind-e2e.sh runs on a real operator, on the real API server: with KubeRay's EMULATION."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml

from helm.engine import merged
from tests.ci_programs import start
from tests.cluster.api import until
from tests.cluster.installed import NAMESPACE, OLD_SERVER, Cluster
from tests.cluster.kuberay import KubeRay
from tests.cluster.runs import LONG, tiny_job, values, volume
from tests.patience import seconds

STEPS = 60
"""Enough for the test and the loss of a pod to come before the end."""


@pytest.mark.nightly
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("backend", ["statefulset", "rayjob"])
def test_a_runs_whole_life_is_as_promised(
    cluster: Cluster, assets: Path, tmp_path: Path, backend: str
) -> None:
    name = f"e2e-{backend}"
    volume(cluster, assets, name)
    small = merged(values(cluster, {"job": {"gracePeriodSeconds": 60}}), OLD_SERVER)
    small["job"].pop("config")
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")
    (tmp_path / "job.yaml").write_text(
        tiny_job(merged(LONG, {"train": {"num_episodes": STEPS // 3}})), encoding="utf-8"
    )
    words = ["--backend", backend, "--image", "registry.example.com/x:1", "--release", name]
    words += ["--job", "job.yaml", "--values", "values.yaml", "--namespace", NAMESPACE]
    words += ["--chart", str(cluster.chart()), "--kubeconfig", str(cluster.plane.kubeconfig)]
    words += ["--deadline-s", str(seconds(900))]
    with KubeRay(cluster.plane.api, NAMESPACE) if backend == "rayjob" else nullcontext():
        process = start(words, tmp_path, module="ci.e2e")
        output, _ = process.communicate(timeout=seconds(1400))
        print(output)
        assert process.returncode == 0, output
    assert f"e2e: {backend} is as expected" in output
    until("nothing left", lambda: cluster.left_of(name) == [], 60)
