"""Whether compiled kernels can be kept in a folder, and what a pod does when they cannot."""

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from openrlhf_mtp.cluster import caches
from tests.patience import seconds

LIBRARY = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))


def environment(folder):
    return {caches.FOLDER: str(folder), **{name: f"{folder}/{name.lower()}" for name in caches.VARIABLES}}


def test_a_folder_that_can_be_used_changes_nothing_and_nothing_is_left_in_it(tmp_path):
    folder = tmp_path / "not/there/yet"
    assert list(caches.lines(environment(folder))) == []
    assert list(folder.iterdir()) == []


def test_without_a_folder_nothing_is_looked_at():
    assert list(caches.lines({})) == []


def test_variables_that_lead_into_a_folder_that_cannot_be_used_are_taken_back(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    variables = environment(blocked / "cache") | {"TRITON_CACHE_DIR": "/mine"}  # extraEnv's
    assert list(caches.lines(variables)) == [
        f"unset {name}" for name in caches.VARIABLES if name != "TRITON_CACHE_DIR"
    ]
    assert capsys.readouterr().err == (
        f"compile cache: {blocked}/cache cannot be used: Not a directory (user {os.getuid()}); kernels are compiled "
        "again on this pod's disk. Give the folder to the pods' user, choose another volume in storage.compileCache, "
        "or set storage.compileCache.enabled=false\n"
    )


@pytest.mark.parametrize("missing", ["replace", "flock"])
def test_a_volume_that_cannot_rename_or_lock_is_not_used(tmp_path, monkeypatch, missing):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    owner = Path if missing == "replace" else caches.fcntl
    monkeypatch.setattr(owner, missing, refuse)
    assert caches.look(tmp_path) == f"Operation not supported (user {os.getuid()})"


def test_a_volume_that_hangs_does_not_hang_the_pod(tmp_path, monkeypatch):
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert caches.problem_of("/x", 0.2) == "it did not answer within 0.2 s"


def test_files_that_a_killed_pod_left_half_written_are_deleted_and_others_stay(tmp_path, capsys):
    whole = LIBRARY.read_bytes()
    files = {
        "vllm/a/rank_0_0/vllm_compile_cache.py": b"{(1, 2): ('x', ",
        "vllm/b/rank_0_0/vllm_compile_cache.py": b"{(1, 2): ('x', 'y')}",
        "vllm/c/rank_0_0/vllm_compile_cache.py": b"",
        "vllm/d/computation_graph.py": b"def f(",
        "flashinfer/half.so": whole[: len(whole) // 2],
        "flashinfer/empty.so": b"",
        "flashinfer/whole.so": whole,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert caches.look(tmp_path) == ""
    deleted = {name for name in files if not (tmp_path / name).exists()}
    assert deleted == {
        "vllm/a/rank_0_0/vllm_compile_cache.py",
        "vllm/c/rank_0_0/vllm_compile_cache.py",
        "flashinfer/half.so",
        "flashinfer/empty.so",
    }
    assert capsys.readouterr().err.count("which was not written to its end") == len(deleted)


def shell(folder, after):
    """The line of the pods in front of a command, in a shell as theirs."""
    path = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
    variables = {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path), **environment(folder)}
    done = subprocess.run(
        ["bash", "-c", f". <(python -m openrlhf_mtp.cluster.caches)\n{after}"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=seconds(60),
    )
    return done.stdout.strip(), done.stderr


def test_the_line_before_ray_takes_them_back_in_the_pods_shell(tmp_path):
    (tmp_path / "file").write_text("")
    assert shell(tmp_path, "echo $VLLM_CACHE_ROOT")[0] == f"{tmp_path}/vllm_cache_root"
    printed, said = shell(tmp_path / "file/x", 'echo "${VLLM_CACHE_ROOT-none} ${TRITON_CACHE_DIR-none}"')
    assert printed == "none none"
    assert "compiled again on this pod's disk" in said


def test_a_pod_starts_also_where_the_look_is_killed(tmp_path, monkeypatch):
    (tmp_path / "python").write_text(f"#!/bin/sh\nkill -{signal.SIGKILL.value} $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert shell(tmp_path, "echo started")[0] == "started"
