"""`ci.benchmark --local`, as CI calls it: a tiny job on this machine against the committed figures."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.ci_programs import start
from tests.engine import rl_jobs
from tests.patience import seconds
from tests.processes import in_fresh_process

pytestmark = [pytest.mark.alone, pytest.mark.nightly]


def test_a_benchmark_on_this_machine_is_compared_with_the_committed_figures(tmp_path: Path) -> None:
    in_fresh_process(rl_jobs.write_assets, tmp_path)
    words = ["tiny", "--local", "--job", "job.yaml", "--set", "mtp.head=policy/mtp", "--out", "out"]
    process = start(words, tmp_path)
    output, _ = process.communicate(timeout=seconds(600))
    assert process.returncode == 0, output
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert len(results["results"]) == 2
    assert "| spec/mean_acceptance_length (mean) |" in output
    assert (tmp_path / "out/run/report.html").exists()


def test_a_benchmark_on_this_machine_that_is_cancelled_ends_its_run(tmp_path: Path) -> None:
    in_fresh_process(rl_jobs.write_assets, tmp_path)
    words = ["tiny", "--local", "--job", "job.yaml", "--set", "train.num_episodes=1000", "--out", "out"]
    process = start([*words, "--set", "mtp.head=policy/mtp"], tmp_path)
    rows, end = tmp_path / "out/run/metrics.jsonl", time.monotonic() + seconds(400)
    while not (rows.exists() and rows.stat().st_size):  # actors and engine are up
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "no step came"
        time.sleep(0.2)
    (train,) = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=seconds(120))
    assert process.returncode == 2, output
    assert "cancelled" in (tmp_path / "out/table.md").read_text(encoding="utf-8")
    assert rl_jobs.processes_of_session(train.pid) == []
