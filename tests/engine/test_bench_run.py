"""`openrlhf-mtp bench run`: a job with its head and without, through both runs."""

import json
from pathlib import Path

import pytest

from tests.engine import rl_jobs

pytestmark = [pytest.mark.alone, pytest.mark.nightly]
STEPS = 3


def test_a_job_runs_with_its_head_and_without(tmp_path: Path) -> None:
    rl_jobs.write_assets(tmp_path)
    done = rl_jobs.run(tmp_path, "bench", "run", "job.yaml", "--out", "bench", "eval.dataset=null")
    assert done.code == 0, done.output[-3000:]
    assert done.leftovers == []
    record = json.loads((tmp_path / "bench" / "bench_run.json").read_text(encoding="utf-8"))
    for arm in ("none", "head"):
        (run,) = record["arms"][arm]
        assert len(run["rewards"]) == STEPS
        assert min(run["parts"][part] for part in ("rollout", "experience", "training", "sync")) > 0
        drafted = ["spec/drafts" in row for row in rl_jobs.rows(tmp_path / "bench" / "turn_1" / arm)]
        assert drafted == [arm == "head"] * STEPS
    assert abs(record["first_step_z"]) < 5, "both arms sample the first step from the same policy"
    assert (tmp_path / "bench" / "bench_run.png").stat().st_size > 0
