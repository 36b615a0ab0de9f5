"""What a driver believes to have: its own GPUs, those that it may use, or those of the pods it drives."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.machine import nvidia
from openrlhf_mtp.config.machine.host import CLUSTER_GPUS, Host, detect_host
from openrlhf_mtp.config.machine.nvidia import Gpu, visible

EIGHT = tuple(Gpu(f"GPU-{number}a1b2c3d4", 81_559) for number in range(8))


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a program named nvidia-smi, with the given shell script, first on the path."""

    def install(script: str, name: str = "nvidia-smi") -> None:
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def test_a_driver_on_a_pod_without_gpus_counts_those_of_the_run():
    assert detect_host({CLUSTER_GPUS: "16"}) == Host(16)


@pytest.mark.parametrize("text", ["abc", "-1", "1.5", "8 "])
def test_a_count_that_is_no_number_is_refused_by_name(text):
    with pytest.raises(JobError, match=rf"{CLUSTER_GPUS}: got '{text}', expected the number of GPUs"):
        detect_host({CLUSTER_GPUS: text})


def test_without_the_driver_tool_and_the_variable_there_is_none(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert detect_host({}) == Host(0)
    assert detect_host({CLUSTER_GPUS: ""}) == Host(0)


LIST_TWO = "echo 'GPU-aaaa, 81559'; echo 'GPU-bbbb, 24564'"


@pytest.mark.parametrize(
    ("environ", "gpus", "memory"),
    [
        ({}, 2, 24_564 / 1024),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 1, 81_559 / 1024),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b"}, 1, 24_564 / 1024),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, None),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0, None),
    ],
)
def test_the_driver_is_asked_and_what_is_hidden_does_not_count(nvidia_smi, environ, gpus, memory):
    nvidia_smi(LIST_TWO)
    assert detect_host(environ) == Host(gpus, memory)


def test_a_gpu_that_does_not_tell_its_memory_counts(nvidia_smi):
    nvidia_smi("echo 'GPU-aaaa, [N/A]'")
    assert detect_host({}) == Host(1)


def test_a_driver_that_fails_is_reported_in_its_own_words(nvidia_smi):
    nvidia_smi("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    problem = detect_host({}).driver_problem
    assert problem == (
        "nvidia-smi failed with exit code 18: Failed to initialize NVML: Driver/library version mismatch"
    )


def test_a_driver_that_hangs_is_reported_and_asked_once(nvidia_smi, monkeypatch):
    nvidia_smi("exec sleep 60")
    monkeypatch.setattr(nvidia, "TIMEOUT_S", 0.2)
    assert detect_host({}).driver_problem == "nvidia-smi did not answer within 0.2 s"
    monkeypatch.setattr(nvidia, "TIMEOUT_S", 3600)
    assert detect_host({}).driver_problem == "nvidia-smi did not answer within 0.2 s"


def test_a_hanging_driver_is_given_up_within_10_seconds():
    assert nvidia.TIMEOUT_S < 10


def test_gpus_of_other_vendors_are_named(nvidia_smi, monkeypatch):
    nvidia_smi("exit 0", name="rocm-smi")
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nvidia-smi" else real(name))
    assert detect_host({}) == Host(0, not_counted="AMD")
    assert str(detect_host({})) == "no CUDA GPU (AMD GPUs are not counted): all on the CPU, GPUs are logical"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, range(8)),
        ("3", [3]),
        ("3, 1", [3, 1]),
        ("0,9,1", [0]),
        ("0,-1,1", [0]),
        ("0,0", [0]),
        ("GPU-2a,GPU-5", [2, 5]),
        ("GPU-", []),
        ("all", []),
    ],
)
def test_devices_are_chosen_by_cudas_rule(chosen, expected):
    assert visible(EIGHT, chosen) == [EIGHT[number] for number in expected]


def test_a_slice_of_a_gpu_counts_and_its_memory_is_not_known():
    assert visible(EIGHT, "MIG-1234") == [Gpu("MIG-1234", None)]


@given(st.text())
def test_no_value_of_the_variable_makes_more_gpus_than_there_are(chosen):
    found = visible(EIGHT, chosen.replace("MIG", ""))
    assert len(found) == len(set(found)) <= 8


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (Host(8), "8 CUDA GPUs"),
        (Host(1, 23.99), "1 CUDA GPU of 24.0 GiB"),
        (Host(0), "no CUDA GPU: all on the CPU, GPUs are logical"),
        (Host(0, driver_problem="it broke"), "GPUs not known, all on the CPU: it broke"),
    ],
)
def test_a_host_in_words(host, words):
    assert str(host) == words
