"""ci/benchmark.py against the real API server, as CI calls it: a good run, a wrong one, a cancelled one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.engine import merged
from tests.benchmarks import start
from tests.cluster.api import until
from tests.cluster.control_plane import ROOT
from tests.cluster.installed import NAMESPACE, OLD_SERVER, Cluster
from tests.cluster.runs import give, tiny_job, values


def prepared(
    cluster: Cluster, assets: Path, folder: Path, changes: dict[str, Any] | None = None
) -> list[str]:
    """A benchmark's arguments; its claim is bound to whichever volume is free."""
    volume = cluster.volume(folder.name.replace("_", "-"), claim=None)
    subprocess.run(["cp", "-r", str(assets), str(volume / "assets")], check=True)
    give(volume)
    (folder / "job.yaml").write_text(tiny_job(changes), encoding="utf-8")
    run = merged(values(cluster), OLD_SERVER)
    run["job"].pop("config")
    (folder / "values.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    words = ["tiny", "--job", "job.yaml", "--values", "values.yaml", "--out", "out", "--deadline-s", "900"]
    cluster_words = ["--chart", str(cluster.chart()), "--kubeconfig", str(cluster.plane.kubeconfig)]
    return [*words, *cluster_words, "--image", "registry.example.com/x:1"]


def left(cluster: Cluster) -> list[str]:
    """What benchmarks have left in the namespace, claims included."""
    pods = [pod["metadata"]["name"] for pod in cluster.plane.api.list("Pod", NAMESPACE)]
    claims = [one["metadata"]["name"] for one in cluster.plane.api.list("PersistentVolumeClaim", NAMESPACE)]
    secrets = [one["metadata"]["labels"] for one in cluster.plane.api.list("Secret", NAMESPACE)]
    releases = [labels["name"] for labels in secrets if labels and labels.get("owner") == "helm"]
    return [name for name in [*pods, *claims, *releases] if name.startswith("bench-")]


@pytest.mark.timeout(900)
def test_a_benchmark_leaves_its_figures_and_nothing_on_the_cluster(
    cluster: Cluster, assets: Path, tmp_path: Path
) -> None:
    process = start(prepared(cluster, assets, tmp_path), tmp_path)
    output, _ = process.communicate(timeout=800)
    assert process.returncode == 0, output
    assert "attempt 1 of 1: SUCCEEDED" in output  # the submitter's output was followed
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert {one["verdict"] for one in results["results"]} <= {"ok", "better"}
    assert (tmp_path / "out/run/report.html").exists()
    assert not (tmp_path / "out/run/checkpoints").exists()
    assert "no regression" in (tmp_path / "shown.md").read_text(encoding="utf-8")
    until("nothing left", lambda: left(cluster) == [], 120)


@pytest.mark.timeout(600)
def test_a_benchmark_whose_job_is_wrong_fails_and_says_so(
    cluster: Cluster, assets: Path, tmp_path: Path
) -> None:
    process = start(prepared(cluster, assets, tmp_path, {"mtp": {"depth": 2}}), tmp_path)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 2, output
    assert "mtp.depth" in (tmp_path / "out/table.md").read_text(encoding="utf-8")
    until("nothing left", lambda: left(cluster) == [], 120)


@pytest.mark.timeout(600)
def test_a_benchmark_that_is_cancelled_removes_its_run(
    cluster: Cluster, assets: Path, tmp_path: Path
) -> None:
    process = start(prepared(cluster, assets, tmp_path), tmp_path)
    until("its pods", lambda: any("-head" in name for name in left(cluster)), 300)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 2, output
    assert "cancelled" in (tmp_path / "out/table.md").read_text(encoding="utf-8")
    until("nothing left", lambda: left(cluster) == [], 120)


@pytest.mark.slow_cluster
@pytest.mark.timeout(600)
def test_what_a_killed_benchmark_leaves_is_removed_by_cis_last_step(
    cluster: Cluster, assets: Path, tmp_path: Path
) -> None:
    process = start([*prepared(cluster, assets, tmp_path), "--release", "bench-killed"], tmp_path)
    until("its pods", lambda: any("-head" in name for name in left(cluster)), 300)
    process.kill()
    process.wait()
    where = ["--kubeconfig", str(cluster.plane.kubeconfig)]
    for _ in range(2):  # nothing there is as good as removed
        subprocess.run(
            [sys.executable, "-m", "ci.remove", "bench-killed", *where], cwd=ROOT, check=True, timeout=200
        )
    until("nothing left", lambda: left(cluster) == [], 120)
