"""An error whose cause was only printed is found in the output of its worker, on whatever pod that ran."""

from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from openrlhf_mtp.cli import failures, worker_output
from openrlhf_mtp.cli.worker_output import SETTLE_S, output

SESSION = "session_2026-11-30_04-52-21_745151_23189"
VLLM = """:job_id:01000000
:actor_name:MTPRolloutActor
(EngineCore pid=21620) ERROR 11-30 02:56:29 [core.py:842] EngineCore failed to start.
(EngineCore pid=21620) ERROR 11-30 02:56:29 [core.py:842] ValueError: No available memory for the cache blocks.
"""


def written(folder: Path, pid: int, text: str, kind: str = "err") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"worker-0808af39-01000000-{pid}.{kind}").write_text(text, encoding="utf-8")


@pytest.fixture
def places(tmp_path):
    """A run folder and the driver's own session."""
    (tmp_path / "ray" / SESSION / "logs").mkdir(parents=True)
    return tmp_path / "run", tmp_path / "ray" / SESSION


def test_on_one_machine_its_session_is_read(places):
    run, session = places
    written(session / "logs", 812, VLLM)
    found = output(run, session, sleep=pytest.fail)
    assert found.errors() == ["ValueError: No available memory for the cache blocks."]
    assert found.where == f"{session / 'logs'} (or run with --verbose)"


def test_on_kubernetes_the_pod_that_failed_says_why(places):
    run, session = places
    written(session / "logs", 11, "ConnectionError: a consequence, on the head\n")
    written(run / "logs" / "run1-head-0" / SESSION, 11, "ConnectionError: a consequence, on the head\n")
    written(run / "logs" / "run1-rollout-0" / "session_of_the_attempt_before", 812, "OSError: long ago\n")
    waited = []

    def arrives(seconds):
        waited.append(seconds)
        written(run / "logs" / "run1-rollout-0" / SESSION, 812, VLLM)

    found = output(run, session, sleep=arrives)
    assert waited == [SETTLE_S]
    cause = "run1-rollout-0 pid=812: ValueError: No available memory for the cache blocks."
    assert found.errors(812) == [cause, "run1-head-0 pid=11: ConnectionError: a consequence, on the head"]
    assert found.errors()[1] == cause
    assert found.where == f"{run}/logs/*/{SESSION}"


def test_a_worker_that_crashed_without_an_errors_name_has_its_last_lines_shown(places):
    run, session = places
    written(session / "logs", 812, ":job_id:01000000\none\ntwo\nCUDA error: device-side assert\n\nAborted\n")
    written(session / "logs", 813, "of another\n")
    found = output(run, session)
    assert found.errors(812) == []
    assert found.last_lines(812) == ["two", "CUDA error: device-side assert", "Aborted"]
    assert found.last_lines(None) == []


def test_only_the_end_of_long_output_is_read(places, monkeypatch):
    run, session = places
    monkeypatch.setattr(worker_output, "_END_BYTES", 20)
    written(session / "logs", 812, "x" * 1000 + "\nlast\n", kind="out")
    assert output(run, session).last_lines(812)[-1] == "last"


def test_an_actors_death_shows_what_its_worker_printed(places, monkeypatch):
    run, session = places
    written(run / "logs" / "run1-rollout-0" / SESSION, 812, "free(): invalid pointer\n")

    class Node:
        def get_session_dir_path(self):
            return str(session)

    monkeypatch.setattr("ray._private.worker._global_node", Node())
    monkeypatch.setattr(worker_output.time, "sleep", lambda seconds: None)
    death = RayActorError()
    death._actor_id, death.error_msg = (
        "a",
        "The actor died.\n\tpid: 812\n\tip: 192.0.2.2\nIts process has died.",
    )
    with pytest.raises(failures.RunFailed) as end, failures.user_facing_errors(run):
        raise death
    assert str(end.value).splitlines() == [
        "RayActorError: Its process has died.",
        "the workers printed:",
        "  run1-rollout-0 pid=812: free(): invalid pointer",
        f"all output of the workers: {run}/logs/*/{SESSION}",
    ]
