"""Faults on the local cluster, each with the end that the documentation states."""

from __future__ import annotations

from pathlib import Path

import pytest

from helm.engine import merged
from tests.cluster.api import until
from tests.cluster.installed import NAMESPACE, Cluster
from tests.cluster.phases import Phase, make_holdable, phase, within
from tests.cluster.runs import STEPS, kept_output, long_values, reached, rows, steps, tiny_job, values, volume
from tests.patience import seconds

EVERY_STEP = [0, *range(1, STEPS + 1)]
SAVED = 2
"""The last checkpoint before the third step."""


@pytest.mark.timeout(600)
def test_a_rollout_pod_that_never_comes_ends_the_run_within_its_deadline(
    cluster: Cluster, assets: Path
) -> None:
    volume(cluster, assets, "never")
    short = {
        "job": {"startupDeadlineSeconds": int(seconds(60))},
        "rollout": {"nodeSelector": {"pool": "no-such"}},
    }
    with cluster.release("never", values(cluster, short)) as run:

        def log() -> str:
            return cluster.kubelet.log_of(f"{run}-submitter")

        # the Job counts as failed minutes later here, as this server has no podFailurePolicy; see "late" below
        until("the attempt's end", lambda: "attempt 1 of 2: FAILED" in log(), 240)
        until("released pods", lambda: not [p for p in cluster.pods_of(run) if "submitter" not in p], 120)
        assert "role rollout: needed 1 pod(s) with 1 GPUs in all, present 0 with 0" in log()
        # another attempt would not change it
        assert "fresh Ray cluster" not in log()
    cluster.finish("never")


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("pod", "during"), [("trainer-0", "training"), ("rollout-0", "generation"), ("head-0", "generation")]
)
def test_a_lost_pod_costs_an_attempt_but_no_saved_step(
    cluster: Cluster, assets: Path, pod: str, during: Phase
) -> None:
    name = f"lost-{pod.removesuffix('-0')}"
    folder = volume(cluster, assets, name)
    make_holdable(folder)
    with cluster.release(name, long_values(cluster)) as run:
        until("three steps", lambda: reached(folder, 3), 600, 0.2)
        with within(during, folder):
            before = rows(folder)
            cluster.kubelet.kill(f"{run}-{pod}")
            # the step that the pod was lost in had not ended
            assert (phase(folder), rows(folder)) == (during, before)
        end = cluster.job_ended(f"{run}-submitter", 600)
        log = cluster.kubelet.log_of(f"{run}-submitter")
        assert end == "Complete", log
        assert "starting again in a fresh Ray cluster" in log
        assert "attempt 2 of 2: SUCCEEDED" in log
    # every step is there once, and those up to the checkpoint were not taken again
    assert steps(folder) == EVERY_STEP
    assert rows(folder)[: SAVED + 1] == before[: SAVED + 1]
    # what was learned before the fault is not lost
    assert final_reward(folder) > LEARNT
    cluster.finish(name)


LAST_WORDS = "judge: the model that rates has no answer"
CRASHING = f"""import os

def reward_func(queries, prompts, labels, **given):
    print("{LAST_WORDS}", flush=True)
    os.abort()
"""


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_worker_that_crashes_leaves_its_last_words_when_its_pod_has_gone(
    cluster: Cluster, assets: Path
) -> None:
    folder = volume(cluster, assets, "crash")
    (folder / "assets/reward.py").write_text(CRASHING, encoding="utf-8")
    with cluster.release("crash", values(cluster, {"job": {"retries": 0}})) as run:

        def log() -> str:
            return cluster.kubelet.log_of(f"{run}-submitter")

        until("the attempt's end", lambda: "attempt 1 of 1: FAILED" in log(), 400)
        until("released pods", lambda: not [p for p in cluster.pods_of(run) if "submitter" not in p], 120)
    # in the pod's own output, in the run folder, and, with the pod's name, at the end of the run's
    assert f"] {LAST_WORDS}\n" in cluster.kubelet.log_of(f"{run}-rollout-0")
    assert LAST_WORDS in kept_output(folder, f"{run}-rollout-0")
    assert any(
        line.strip().startswith(f"{run}-rollout-0 pid=") and LAST_WORDS in line for line in log().splitlines()
    )
    cluster.finish("crash")


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_killed_submitters_successor_follows_the_same_job(cluster: Cluster, assets: Path) -> None:
    folder = volume(cluster, assets, "submitter")
    with cluster.release("submitter", long_values(cluster)) as run:
        until("a first step", lambda: reached(folder, 1), 600, 0.2)
        cluster.kubelet.kill(f"{run}-submitter")
        assert cluster.job_ended(f"{run}-submitter", 500) == "Complete"
        log = cluster.kubelet.log_of(f"{run}-submitter")
        assert log.count("submitter: started") == 1
        assert "attempt 1 of 2: SUCCEEDED" in log
    assert steps(folder) == EVERY_STEP
    cluster.finish("submitter")


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_pod_that_is_told_to_stop_gets_a_checkpoint_first(cluster: Cluster, assets: Path) -> None:
    folder = volume(cluster, assets, "drain")
    # it would never save by itself
    asked = {"job": {"config": tiny_job({"train": {"num_episodes": 3}}), "gracePeriodSeconds": 120}}
    with cluster.release("drain", merged(long_values(cluster), asked)) as run:
        until("a second step", lambda: reached(folder, 2), 600, 0.2)
        before = rows(folder)
        cluster.plane.api.delete("Pod", NAMESPACE, f"{run}-trainer-0")
        until("a checkpoint", lambda: list(folder.glob("*/checkpoints/_actor/global_step*")), 120)
        end = cluster.job_ended(f"{run}-submitter", 600)
        log = cluster.kubelet.log_of(f"{run}-submitter")
        assert end == "Complete", log
    assert steps(folder) == EVERY_STEP
    assert (
        rows(folder)[: SAVED + 1] == before[: SAVED + 1]
    )  # the checkpoint came after the step that was running
    cluster.finish("drain")


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_run_that_takes_too_long_is_stopped_and_gives_its_pods_back(cluster: Cluster, assets: Path) -> None:
    folder = volume(cluster, assets, "late")
    limits = {"startupDeadlineSeconds": int(seconds(60)), "deadlineSeconds": int(seconds(170))}
    endless = {"job": {"config": tiny_job({"train": {"num_episodes": 1000}})}}
    with cluster.release("late", merged(values(cluster, endless), {"job": limits})) as run:
        assert cluster.job_ended(f"{run}-submitter", 400) == "Failed"
        log = cluster.kubelet.log_of(f"{run}-submitter")
        assert f"submitter: the run has not ended within {limits['deadlineSeconds']} s and is stopped" in log
        until("released pods", lambda: not [p for p in cluster.pods_of(run) if "submitter" not in p], 120)
    assert reached(folder, 1)  # it was training
    cluster.finish("late")


LEARNT = 0.066
"""A reward that an untrained policy of the tiny job reaches once in 30,000 runs (0.02 to 0.05 were seen, standard error
0.004), and that a trained one misses once in 20,000: six ended between 0.14 and 0.30, a spread of 0.3 of the logarithm.
That nothing at all is lost is shown bit for bit in tests/engine/test_resume.py."""


def final_reward(folder: Path) -> float:
    """The mean reward of a run's last three steps."""
    last = [row["policy/reward"] for row in rows(folder) if "policy/reward" in row][-3:]
    return sum(last) / len(last)
