"""`ci.benchmark --local`, as CI calls it: a tiny job on this machine against the committed figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.engine import rl_jobs
from tests.processes import in_fresh_process

ROOT = Path(__file__).parents[2]


def test_a_benchmark_on_this_machine_is_compared_with_the_committed_figures(tmp_path: Path) -> None:
    in_fresh_process(rl_jobs.write_assets, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["tiny", "--local", "--job", "job.yaml", "--set", "mtp.head=policy/mtp", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "ci.benchmark", *words],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    results = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert len(results["results"]) == 2
    assert "| spec/mean_acceptance_length (mean) |" in done.stdout
    assert (tmp_path / "out/run/report.html").exists()
