"""Small decisions of `ci.benchmark` before anything is installed."""

import base64
import contextlib
import io
import os
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

from ci import benchmark
from ci.benchmark import image_of
from ci.cluster import BenchmarkError, namespace_of
from ci.on_cluster import LOG_BYTES, collector, unpack
from helm.engine import render_ci
from tests.patience import seconds

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: c, cluster: {server: "https://example.com"}}]
users: [{name: u, user: {}}]
contexts:
  - {name: there, context: {cluster: c, user: u, namespace: other}}
  - {name: here, context: {cluster: c, user: u%s}}
"""


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("registry.example.com/x:1", "registry.example.com/x", "1", ""),
        ("registry.example.com:5000/x:1", "registry.example.com:5000/x", "1", ""),
        ("registry.example.com:5000/x@sha256:ab", "registry.example.com:5000/x", "", "sha256:ab"),
    ],
)
def test_an_image_is_a_repository_and_a_tag_or_a_digest(text, repository, tag, digest):
    assert image_of(text) == {"repository": repository, "tag": tag, "digest": digest}


@pytest.mark.parametrize("text", ["x", "registry.example.com:5000/x"])
def test_an_image_that_could_be_another_tomorrow_is_refused(text):
    with pytest.raises(BenchmarkError, match="expected NAME:TAG or NAME@DIGEST"):
        image_of(text)


@pytest.mark.parametrize(("given", "found"), [(", namespace: team", "team"), ("", "default")])
def test_the_namespace_is_the_current_contexts(tmp_path, given, found):
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG % given, encoding="utf-8")
    assert namespace_of(path) == found


def test_a_kubeconfig_that_is_none_is_an_error_that_names_it(tmp_path, capsys):
    words = ["tiny", "--job", "job.yaml", "--out", str(tmp_path), "--kubeconfig", str(tmp_path / "none")]
    assert benchmark.main(words) == benchmark.FAILED
    assert f"--kubeconfig: got {tmp_path / 'none'}, expected a cluster's" in capsys.readouterr().out


def test_an_error_nobody_expected_is_a_failure_and_no_regression(tmp_path, monkeypatch):
    def broken(arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(benchmark, "run_on_cluster", broken)
    assert benchmark.main(["tiny", "--job", "job.yaml", "--out", str(tmp_path)]) == benchmark.FAILED
    assert "ZeroDivisionError: a bug" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_a_cancelled_local_benchmark_ends_all_processes_of_its_run(tmp_path, monkeypatch, capsys):
    train, ready, child = tmp_path / "train", tmp_path / "ready", tmp_path / "child"
    train.write_text(f"#!/bin/bash\nsleep 1000 &\necho $! > {child}\ntouch {ready}\nwait\n", encoding="utf-8")
    train.chmod(0o755)
    monkeypatch.setattr(benchmark.sys, "executable", str(train))

    def cancel():
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=cancel, daemon=True).start()
    code = benchmark.main(["tiny", "--local", "--job", "job.yaml", "--out", str(tmp_path / "out")])
    assert (code, "cancelled" in capsys.readouterr().out) == (benchmark.FAILED, True)
    end = time.monotonic() + seconds(30)
    while lives(child.read_text().strip()):
        assert time.monotonic() < end, "the run's own child lives on"
        time.sleep(0.05)


def test_a_cancel_in_the_midst_of_the_start_ends_the_run_too(tmp_path, monkeypatch, capsys):
    started = []

    def start(*words, **options):
        started.append(popen(["sleep", "1000"], **options))
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    popen = subprocess.Popen
    monkeypatch.setattr(benchmark.subprocess, "Popen", start)
    code = benchmark.main(["tiny", "--local", "--job", "job.yaml", "--out", str(tmp_path / "out")])
    assert (code, "cancelled" in capsys.readouterr().out) == (benchmark.FAILED, True)
    assert started[0].returncode == -signal.SIGKILL


def lives(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return False


@pytest.mark.parametrize("figure_bytes", [1000, 7 << 20])
def test_what_a_pod_prints_of_a_run_folder_fits_its_log(tmp_path, figure_bytes):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "logs" / "run1-head-0").mkdir(parents=True)
    for name in ("summary.json", "report.html", "figure.png", "checkpoints/big.pt", "logs/run1-head-0/x.err"):
        (folder / name).write_bytes(os.urandom(figure_bytes if name == "figure.png" else 10))
    (container,) = collector(render_ci("cpu-smoke"), "x-fetch")["spec"]["containers"]
    script = container["command"][-1]
    there = next(line for line in script.splitlines() if line.startswith("cd "))
    printed = subprocess.run(
        ["bash", "-c", script.replace(there, f"cd '{folder}'")], check=True, capture_output=True
    ).stdout
    left_out, _, archive = printed.partition(b"\n")
    unpack(archive, tmp_path / "out")
    found = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    if figure_bytes < LOG_BYTES:
        assert (found, left_out) == ({"summary.json", "report.html", "figure.png"}, b"")
    else:
        assert found == {"summary.json", "report.html"}
        assert b"too large for a pod's log" in left_out


@pytest.mark.parametrize(
    "entry", [("../outside", tarfile.REGTYPE), ("/outside", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)]
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path, entry):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(entry[0])
        member.type, member.linkname = entry[1], str(tmp_path)
        archive.addfile(member, io.BytesIO(b""))
    with pytest.raises(ValueError, match=f"holds '{entry[0]}', expected files and folders of the run"):
        unpack(base64.b64encode(packed.getvalue()), tmp_path / "out")
    assert not (tmp_path / "outside").exists()
