"""Whole runs whose engines have several workers, which are Ray's, as OpenRLHF starts them.

The workers compute in processes of their own, on this machine's cores: what one of them holds, and what they say to one
another, is what it is on GPUs.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from openrlhf_mtp.config.checkpoints import all_of
from openrlhf_mtp.config.run_files import CHECKPOINTS
from tests.engine import rl_jobs
from tests.engine.test_rl_runs import STEPS as ALL_STEPS
from tests.engine.test_rl_runs import assert_sound
from tests.patience import seconds

pytestmark = [pytest.mark.alone, pytest.mark.nightly]

BRIEF = ("eval.dataset=null", "data.max_samples=16")
STEPS = 2


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tp")
    rl_jobs.write_assets(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two workers", ["vllm.tensor_parallel_size=2"]),
        ("four workers for two key-value heads", ["vllm.tensor_parallel_size=4"]),
        (
            "on the trainer's GPUs",
            ["vllm.tensor_parallel_size=2", "train.colocate_all=true", "actor.num_gpus_per_node=2"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_job_trains_and_drafts_with_an_engine_of(name: str, words: list[str], assets: Path) -> None:
    """Log-probs agree, so each worker's shard is the trainer's; and drafts are accepted as the trainer expects."""
    out = name.replace(" ", "-")
    done = rl_jobs.run(assets, "train", "job.yaml", "--out", out, *BRIEF, *words)
    rows = assert_sound(done, assets / out, steps=STEPS)
    assert {row["sync/rpc_calls"] for row in rows} == {1}


def test_the_guard_stops_a_job_whose_engine_has_two_workers(assets: Path) -> None:
    """It counts what the engine accepted, however many workers computed it, and saves before it ends the run."""
    guard = ("mtp.guard.action=stop", "mtp.guard.min_acceptance_length=3.99", "mtp.guard.patience=1")
    words = ("train", "job.yaml", "--out", "guarded", "eval.dataset=null", "vllm.tensor_parallel_size=2")
    done = rl_jobs.run(assets, *words, *guard)
    assert done.code != 0, done.output[-3000:]
    assert "acceptance length" in done.output, done.output[-3000:]
    rows = rl_jobs.rows(assets / "guarded")
    assert 1 <= len(rows) < ALL_STEPS, "it ended before the last step"
    assert rows[-1]["spec/mean_acceptance_length"] < 4
    assert all_of(assets / "guarded" / CHECKPOINTS)
    assert done.leftovers == []


def test_a_worker_that_is_killed_ends_the_run(assets: Path) -> None:
    words = ("train", "job.yaml", "--out", "killed", "eval.dataset=null", "vllm.tensor_parallel_size=2")
    process = rl_jobs.start(assets, *words)
    metrics = assets / "killed" / "metrics.jsonl"
    end = time.monotonic() + seconds(600)
    while not (metrics.exists() and metrics.read_text().count("\n") >= 1):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, "the first step never came"
        time.sleep(0.05)
    workers = [one for one in psutil.Process(process.pid).children(recursive=True) if _is_worker(one)]
    assert len(workers) == 2, workers
    workers[1].send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=seconds(300))
    assert process.returncode not in (0, None), output[-3000:]
    assert "engine" in output, output[-3000:]
    assert rl_jobs.processes_of_session(process.pid) == []


def _is_worker(process: psutil.Process) -> bool:
    """Whether it is a worker of an engine, which Ray titles by its class; a process that ends meanwhile is none."""
    try:
        return "RayWorkerProc" in " ".join(process.cmdline())
    except psutil.Error:
        return False
