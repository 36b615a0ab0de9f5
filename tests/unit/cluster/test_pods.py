"""What a pod finds out about itself before a run starts."""

import os

import pytest

from openrlhf_mtp.cluster.pods import look, write_token

SMALL, LARGE = 1, 1 << 60


@pytest.fixture
def run(tmp_path):
    return tmp_path / "runs" / "one"


def test_a_pod_with_memory_and_a_shared_folder_has_no_problem(run, tmp_path):
    assert look(str(run), write_token(run), SMALL, shm=tmp_path) == []
    assert [path.name for path in run.iterdir()] == [".preflight"]


def test_small_shared_memory_is_said_with_both_sizes(run, tmp_path):
    (problem,) = look(str(run), "", LARGE, shm=tmp_path)
    assert f"expected {LARGE >> 20} or more; raise shmSize" in problem


def test_missing_shared_memory_is_said(run, tmp_path):
    (problem,) = look(str(run), "", SMALL, shm=tmp_path / "none")
    assert "is missing; mount a memory volume" in problem


@pytest.mark.parametrize(
    ("lines", "gpus"),
    [
        (["GPU 0: NVIDIA H100", "GPU 1: NVIDIA H100"], 2),
        (["GPU 0: NVIDIA H100", "  MIG 3g.40gb Device 0:", "  MIG 3g.40gb Device 1:"], 2),
        ([], 0),
    ],
)
def test_as_many_gpus_as_expected_are_no_problem(run, tmp_path, lines, gpus):
    assert look(str(run), "", SMALL, gpus, shm=tmp_path, devices=lambda: lines) == []


def test_too_few_gpus_are_said_with_both_numbers(run, tmp_path):
    (problem,) = look(str(run), "", SMALL, 8, shm=tmp_path, devices=lambda: ["GPU 0: NVIDIA H100"])
    assert problem.startswith("has 1 GPUs, expected 8")


@pytest.fixture
def infiniband(tmp_path):
    folder = tmp_path / "infiniband"
    folder.mkdir()
    (folder / "uverbs0").touch()
    return folder


def looked_for_rdma(run, tmp_path, gpus=1, **changes):
    given = {"rdma": True, "shm": tmp_path, "devices": lambda: ["GPU 0: NVIDIA H100"], "verbs": "libc.so.6"}
    return look(str(run), "", SMALL, gpus, **{**given, **changes})


def test_a_pod_with_a_verbs_device_and_its_library_has_no_problem(run, tmp_path, infiniband):
    assert looked_for_rdma(run, tmp_path, infiniband=infiniband) == []


def test_a_pod_without_a_verbs_device_is_said_where_rdma_was_promised(run, tmp_path, infiniband):
    (infiniband / "uverbs0").unlink()
    (problem,) = looked_for_rdma(run, tmp_path, infiniband=infiniband)
    assert problem.startswith("has no verbs device")
    assert looked_for_rdma(run, tmp_path, infiniband=infiniband, rdma=False) == []
    assert looked_for_rdma(run, tmp_path, infiniband=infiniband, gpus=0) == []  # the head


def test_an_image_without_the_verbs_library_is_said(run, tmp_path, infiniband):
    (problem,) = looked_for_rdma(run, tmp_path, infiniband=infiniband, verbs="libnone-such.so.1")
    assert problem.startswith("cannot load libnone-such.so.1")


def test_a_pod_without_the_driver_is_said_with_the_remedy(run, tmp_path):
    (problem,) = look(str(run), "", SMALL, 1, shm=tmp_path)  # the real nvidia-smi of a host without one
    assert "pods.runtimeClassName=nvidia" in problem


def test_a_folder_that_cannot_be_written_is_said_with_the_user(tmp_path):
    (problem,) = look("/proc/no-such-folder", "", SMALL, shm=tmp_path)
    assert f"cannot write to /proc/no-such-folder as user {os.getuid()}" in problem


def test_a_folder_of_its_own_is_not_the_heads(run, tmp_path):
    token = write_token(run)
    (problem,) = look(str(tmp_path / "elsewhere"), token, SMALL, shm=tmp_path)
    assert "must be one volume that all pods mount (ReadWriteMany)" in problem
    write_token(run)
    (problem,) = look(str(run), token, SMALL, shm=tmp_path)
    assert "is not the head's folder" in problem
