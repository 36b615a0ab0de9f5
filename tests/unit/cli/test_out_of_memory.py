"""Memory that ran out is said as that, in a few lines, and is nobody's bug."""

import pytest
from ray.exceptions import OutOfMemoryError, RayError

from openrlhf_mtp.cli.failures import RunFailed, user_facing_errors
from openrlhf_mtp.cli.out_of_memory import REMEDIES, out_of_memory_words

RAY_TEXT = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: 46cd) was "
    "22.42GB / 23.54GB (0.952520), which exceeds the memory usage threshold of 0.950000; Object store memory usage: [- "
    "objects spillable: 1; ]; Ray killed 1 worker(s) based on the killing policy: [(Actor(0007): job ID=01)]; To see "
    "more information about memory usage on this node, use `ray logs raylet.out -ip 192.0.2.2`; Top 10 memory users: "
    "PID\tMEM(GB)\tCOMMAND, 2998\t6.29\tray::PolicyModelActor.fit, 3301\t3.02\tVLLM::EngineCore, 3852\t1.89\t"
    "/usr/bin/python3 "
    + "x" * 80
    + ", 929\t1.49\tpython pilot.py, a, b, Refer to the documentation on how to address"
)
"""As Ray 2.56 wrote it, shortened."""


def test_a_page_of_text_becomes_three_lines():
    used, largest, remedies = out_of_memory_words(RAY_TEXT).splitlines()
    assert used == "the machine ran out of memory: 22.42GB of 23.54GB were in use, so Ray ended a worker"
    shown = largest.removeprefix("the largest processes: ").split("; ")
    assert shown[:2] == ["6.29 GB ray::PolicyModelActor.fit", "3.02 GB VLLM::EngineCore"]
    assert shown[2].startswith("1.89 GB /usr/bin/python3 xxx")
    assert shown[2].endswith("...")
    assert remedies == REMEDIES


def test_another_form_keeps_its_first_sentence():
    words = out_of_memory_words("The node is nearly full. A page follows. ")
    assert words == f"the machine ran out of memory: The node is nearly full\n{REMEDIES}"


def test_a_run_that_ends_so_is_a_failed_run_with_the_remedies(tmp_path, monkeypatch):
    monkeypatch.setattr("openrlhf_mtp.cli.failures.output", lambda run, session: _Output())
    monkeypatch.setattr("ray._private.worker._global_node", _Node(), raising=False)
    with pytest.raises(RunFailed) as failed, user_facing_errors(tmp_path):
        raise OutOfMemoryError(RAY_TEXT)
    lines = str(failed.value).splitlines()
    assert lines[0].startswith("OutOfMemoryError: the machine ran out of memory: 22.42GB")
    assert REMEDIES in lines
    assert lines[-1] == "all output of the workers: logs"
    assert "an older warning" not in str(failed.value), "a killed worker printed nothing about it"


def test_every_error_of_ray_is_a_failed_run(tmp_path, monkeypatch):
    monkeypatch.setattr("openrlhf_mtp.cli.failures.output", lambda run, session: _Output())
    monkeypatch.setattr("ray._private.worker._global_node", _Node(), raising=False)
    with pytest.raises(RunFailed, match="the node died"), user_facing_errors(tmp_path):
        raise RayError("the node died")


class _Node:
    def get_session_dir_path(self) -> str:
        return "session"


class _Output:
    where = "logs"

    def errors(self, pid: int | None) -> list[str]:
        return ["an older warning"]

    def last_lines(self, pid: int | None) -> list[str]:
        return []
