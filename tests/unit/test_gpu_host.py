"""Set-up on a GPU host, told from stand-ins: the driver, the toolkit and how many compilers fit."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = """set -euo pipefail
say() { echo "setup: $*"; }
fail() { echo "setup: error: $*" >&2; exit 1; }
. docker/versions.env
. scripts/gpu_host.sh
"""


def tool(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def shell(folder, command, **environ):
    return subprocess.run(
        ["bash", "-c", SETUP + command],
        cwd=ROOT,
        env={"PATH": f"{folder}:/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("driver", "state"),
    [
        (None, "none"),
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'", "gpu"),
        ("echo 'No devices were found'", "none"),
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "nvidia-smi ended with code 18: Failed to initialize NVML: Driver/library version mismatch",
        ),
        ("exit 124", "nvidia-smi did not answer within 10 s"),
    ],
)
def test_the_driver_says_whether_there_is_a_gpu_or_what_is_wrong(tmp_path, driver, state):
    if driver:
        tool(tmp_path, "nvidia-smi", driver)
    assert shell(tmp_path, "gpu_state").stdout.strip() == state


def test_a_driver_that_fails_ends_set_up_with_its_words(tmp_path):
    tool(tmp_path, "nvidia-smi", "echo 'Driver/library version mismatch'; exit 18")
    setup = (ROOT / "scripts/setup.sh").read_text()
    function = setup[setup.index("stack() {") : setup.index("# What the scripts need from the system")]
    done = shell(tmp_path, function + "chosen=$(stack); echo installed $chosen")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Driver/library version mismatch" in done.stderr
    assert "STACK=cpu bash scripts/setup.sh" in done.stderr
    assert shell(tmp_path, function + "stack", STACK="cpu").stdout == "cpu\n"


def test_the_toolkit_that_torch_was_built_for_is_taken(tmp_path):
    tool(tmp_path, "nvcc", "echo 'Cuda compilation tools, release 13.0, V13.0.88'")
    done = shell(tmp_path, "require_nvcc")
    assert (done.returncode, done.stdout) == (0, f"setup: nvcc 13.0 at {tmp_path}/nvcc\n")


def test_another_toolkit_is_refused_with_both_versions(tmp_path):
    tool(tmp_path, "nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.99'")
    done = shell(tmp_path, "require_nvcc")
    assert done.returncode == 1
    assert "is CUDA 12.4, and torch 2.13.0 is built for CUDA 13" in done.stderr


def test_cuda_home_comes_before_the_path(tmp_path):
    (tmp_path / "own/bin").mkdir(parents=True)
    tool(tmp_path, "nvcc", "echo 'release 12.4, V12.4.99'")
    tool(tmp_path / "own/bin", "nvcc", "echo 'release 13.0, V13.0.88'")
    assert shell(tmp_path, "require_nvcc", CUDA_HOME=f"{tmp_path}/own").returncode == 0


def test_a_host_without_a_toolkit_is_told_what_to_install(tmp_path):
    done = shell(tmp_path, "find_nvcc() { return 1; }; require_nvcc")
    assert done.returncode == 1
    assert "Install NVIDIA's CUDA toolkit 13.0" in done.stderr


@pytest.mark.parametrize(
    ("gib", "cores", "jobs"), [(8, 64, 1), (64, 16, 6), (512, 16, 8), (2000, 1, 1), (0, 4, 1)]
)
def test_compilers_fit_into_memory_and_cores(tmp_path, gib, cores, jobs):
    assert shell(tmp_path, f"max_jobs {gib} {cores}").stdout.strip() == str(jobs)
