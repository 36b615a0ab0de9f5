"""`ci.benchmark --local`, as CI calls it: a tiny job on this machine against the committed figures."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks import start
from tests.engine import rl_jobs
from tests.processes import in_fresh_process


def test_a_benchmark_on_this_machine_is_compared_with_the_committed_figures(tmp_path: Path) -> None:
    in_fresh_process(rl_jobs.write_assets, tmp_path)
    words = ["tiny", "--local", "--job", "job.yaml", "--set", "mtp.head=policy/mtp", "--out", "out"]
    process = start(words, tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert len(results["results"]) == 2
    assert "| spec/mean_acceptance_length (mean) |" in output
    assert (tmp_path / "out/run/report.html").exists()
