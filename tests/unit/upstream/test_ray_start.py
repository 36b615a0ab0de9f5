"""Ray's start on a slow machine: waited for as long as the user says, in Ray's own words at the end."""

import shutil
import subprocess
import time

import pytest

from openrlhf_mtp.upstream.ray_start import (
    PATIENCE,
    START_LIMIT,
    NodeEnded,
    be_patient,
    node_has_ended,
    patient,
    start_limit_s,
)
from tests.patience import seconds


def node_after(failures):
    def get_node(address, node):
        if failures:
            raise RuntimeError(failures.pop())
        return {"address": address, "node": node}

    return get_node


def test_a_node_that_is_late_is_waited_for():
    get_node = patient(node_after(["not yet"] * 50), limit_s=60.0, pause_s=0.0)
    assert get_node("here", node="n") == {"address": "here", "node": "n"}


def test_a_node_that_never_comes_ends_in_rays_own_words():
    get_node = patient(node_after([f"not {number}" for number in range(100)]), limit_s=0.0, pause_s=0.001)
    with pytest.raises(RuntimeError, match="not"):
        get_node("here", "n")


def test_a_node_that_has_ended_is_not_waited_for():
    ended = iter([False, False, True])
    get_node = patient(node_after(["not yet"] * 50), limit_s=60.0, pause_s=0.0, has_ended=lambda: next(ended))
    with pytest.raises(NodeEnded):
        get_node("here", "n")


def test_a_node_has_ended_when_its_process_has(tmp_path):
    assert not node_has_ended()
    program = tmp_path / "raylet"
    program.symlink_to(shutil.which("sleep"))
    process = subprocess.Popen([str(program), "0"])
    try:
        end = time.monotonic() + seconds(10)
        while not node_has_ended():
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.wait()
    assert not node_has_ended()


def test_the_limit_is_the_users():
    assert start_limit_s({START_LIMIT: "1200"}) == 1200.0


def test_what_the_user_has_set_stays():
    name = "RAY_agent_register_timeout_ms"
    environ = {name: "5"}
    be_patient(environ)
    assert environ == {**PATIENCE, name: "5"}
