"""The two-minute form of each study: its runs end, its result holds finite numbers, and a second call runs nothing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import seconds

pytestmark = [pytest.mark.alone, pytest.mark.nightly]

ROOT = Path(__file__).parents[2]
STUDIES = ("objectives", "entropy", "drift", "regimes", "limited_heads", "limited_heads_real", "occ_rewards")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all of them: policy, prompts and heads are made once, and study 2 reads study 1's runs."""
    return tmp_path_factory.mktemp("studies")


def study(name: str, runs: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "examples" / "studies" / name / "study.py"
    return subprocess.run(
        [sys.executable, str(script), "--smoke", "--runs", str(runs)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds(1500),
        check=False,
    )


def logs(runs: Path) -> str:
    return "\n".join(log.read_text()[-2000:] for log in runs.glob("*/*/seed_*/study.log"))


# two minutes on an idle machine: the whole way from an untaught policy to a result
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("name", STUDIES)
def test_the_smoke_form_of_a_study_measures_every_arm(name: str, runs: Path) -> None:
    done = study(name, runs)
    assert done.returncode == 0, done.stdout + done.stderr + logs(runs)
    folder = runs / name / "result"
    result = json.loads((folder / "result.json").read_text())
    assert result["missing"] == []
    assert len(result["runs"]) == 2
    values = [value for arm in result["runs"].values() for run in arm for value in run.values()]
    assert values
    assert all(math.isfinite(value) for value in values)
    assert (folder / "result.png").stat().st_size > 0
    for arm in result["runs"]:
        assert f"| {arm} |" in (folder / "result.md").read_text()


@pytest.mark.timeout(1600)
def test_the_smoke_form_of_the_replay_study_repeats_its_run(runs: Path) -> None:
    done = study("replay", runs)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((runs / "replay" / "result" / "result.json").read_text())
    assert result["missing"] == []
    assert set(result["runs"]) == {"frozen_e2e_tv", "online_e2e_tv", "tv_oracle_targets", "refit_bound"}
    (path,) = result["paths"].values()
    # DeepSpeed trained the head in the run, a plain AdamW in the replay: on the same states and the same text
    assert path["engine"]["steps"] == 3
    assert path["engine"]["largest_replay_minus_trainer"] < 1e-4
    assert path["engine"]["engine"] == pytest.approx(path["engine"]["replay"], abs=0.5)


@pytest.mark.timeout(1600)
def test_the_smoke_form_of_the_study_of_gradients_measures_every_checkpoint(runs: Path) -> None:
    done = study("occ_gradients", runs)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((runs / "occ_gradients" / "result" / "result.json").read_text())
    assert result["missing"] == []
    assert len(result["checkpoints"]) == 4
    for record in result["checkpoints"].values():
        changes = [each for kind in record["steps"].values() for each in kind.values()]
        assert len(changes) == 10
        assert all(math.isfinite(value) for each in changes for value in each.values())
        assert math.isfinite(record["proxies"]["occ"])
    assert (runs / "occ_gradients" / "result" / "result.png").stat().st_size > 0


@pytest.mark.timeout(1600)
def test_the_smoke_form_of_rollout_time_measures_the_replayed_path(runs: Path) -> None:
    if not (runs / "replay" / "result").exists():  # the test before this one, where it was not chosen
        assert study("replay", runs).returncode == 0
    done = study("rollout_time", runs)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((runs / "rollout_time" / "result" / "result_stand_in.json").read_text())
    assert result["missing"] == []
    assert set(result["runs"]) == {"none", "ngram", "frozen", "online"}
    for arm, (values,) in result["runs"].items():
        assert all(math.isfinite(value) for value in values.values())
        assert values["seconds"] > 0
        assert 1.0 <= values["tokens_per_forward"] <= 4.0
        assert values["tokens_per_forward"] == 1.0 or arm != "none"
    assert {"none", "online"} == {arm for arm, (values,) in result["runs"].items() if "reward" in values}


def test_a_study_that_is_whole_runs_nothing_again(runs: Path) -> None:
    done = study("objectives", runs)
    assert done.returncode == 0, done.stderr
    assert "2 runs, 0 to do" in done.stderr
