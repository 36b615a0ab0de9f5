"""ci/benchmark.py against the real API server, as CI calls it: a good run, a wrong one, a cancelled one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.engine import merged
from tests.ci_programs import start
from tests.cluster.api import until
from tests.cluster.control_plane import ROOT
from tests.cluster.installed import NAMESPACE, OLD_SERVER, Cluster
from tests.cluster.runs import give, tiny_job, values
from tests.patience import seconds


def prepared(
    cluster: Cluster,
    assets: Path,
    folder: Path,
    changes: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> list[str]:
    """A benchmark's arguments, with changes of the job and more values; its claim is bound to a volume that is free."""
    volume = cluster.volume(folder.name.replace("_", "-"), claim=None)
    subprocess.run(["cp", "-r", str(assets), str(volume / "assets")], check=True)
    give(volume)
    (folder / "job.yaml").write_text(tiny_job(changes), encoding="utf-8")
    run = merged(merged(values(cluster), OLD_SERVER), more or {})
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
    output, _ = process.communicate(timeout=seconds(800))
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
    output, _ = process.communicate(timeout=seconds(500))
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
    output, _ = process.communicate(timeout=seconds(200))
    assert process.returncode == 2, output
    assert "cancelled" in (tmp_path / "out/table.md").read_text(encoding="utf-8")
    until("nothing left", lambda: left(cluster) == [], 120)


@pytest.mark.timeout(400)
def test_a_benchmark_cancelled_during_helms_hook_ends_at_once(
    cluster: Cluster, assets: Path, tmp_path: Path
) -> None:
    nowhere = {"tools": {"nodeSelector": {"pool": "no-such"}}}  # the check of the job file never starts
    words = prepared(cluster, assets, tmp_path, more=nowhere)
    process = start([*words, "--release", "bench-hook"], tmp_path)
    until("the hook's pod", lambda: any(name.endswith("-check") for name in left(cluster)), 120)
    cancelled = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=seconds(120))
    assert time.monotonic() - cancelled < seconds(60)  # the hook would have been waited for 900 s
    assert process.returncode == 2, output
    assert "cancelled" in (tmp_path / "out/table.md").read_text(encoding="utf-8")
    until("nothing left", lambda: cluster.left_of("bench-hook") == [], 120)
    time.sleep(10)
    assert cluster.left_of("bench-hook") == []  # the install has not gone on


@pytest.mark.timeout(400)
def test_a_benchmark_does_not_touch_a_release_that_has_its_name(
    cluster: Cluster, assets: Path, tmp_path: Path
) -> None:
    pending = merged(values(cluster), {"pods": {"nodeSelector": {"pool": "no-such"}}})
    foreign = merged(pending, {"preflight": {"checkJob": False}})  # its pods stay Pending
    with cluster.release("bench-foreign", foreign):
        before = cluster.left_of("bench-foreign")
        assert any(one.startswith("PersistentVolumeClaim") for one in before)
        words = [*prepared(cluster, assets, tmp_path), "--release", "bench-foreign"]
        process = start(words, tmp_path)
        output, _ = process.communicate(timeout=seconds(200))
        assert process.returncode == 2, output
        assert "got bench-foreign, expected a new name" in output
        assert set(before) <= set(cluster.left_of("bench-foreign"))
    cluster.finish("bench-foreign")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_two_benchmarks_at_once_are_each_others_strangers(
    cluster: Cluster, assets: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "at-once-1", tmp_path / "at-once-2"]
    for folder in folders:
        folder.mkdir()
    processes = [start(prepared(cluster, assets, folder), folder) for folder in folders]
    until("both runs' pods", lambda: sum("-head" in name for name in left(cluster)) == 2, 400)
    outputs = [process.communicate(timeout=seconds(1300))[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert len({output.splitlines()[0] for output in outputs}) == 2  # "release NAME, run NAME"
    for folder, output in zip(folders, outputs, strict=True):
        assert output.count("attempt 1 of 1: SUCCEEDED") == 1
        assert (folder / "out/run/report.html").exists()
    until("nothing left", lambda: left(cluster) == [], 120)


@pytest.mark.nightly
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
            [sys.executable, "-m", "ci.remove", "bench-killed", *where],
            cwd=ROOT,
            check=True,
            timeout=seconds(200),
        )
    until("nothing left", lambda: left(cluster) == [], 120)
