"""Weights handed over on one GPU (CUDA IPC), and the checks of a sync on a GPU."""

import signal

import pytest
import torch

from openrlhf_mtp.sync.buckets import Packer, Unpacker, damaged, pack_into_buckets
from openrlhf_mtp.sync.digest import WORD_TILE, checksum, digest
from openrlhf_mtp.sync.manifest import TensorSpec
from tests.handover_rounds import GIVES_UP, TIMEOUT_S, assert_ended_in_time_and_clean, run

GPU = "cuda:0"


def test_buckets_go_from_process_to_process_on_one_gpu_and_the_memory_comes_back():
    ends = run({}, GPU)
    assert [(end.error, end.kept) for end in ends.values()] == [("", [])] * 3


@pytest.mark.parametrize(
    "fault", [signal.SIGKILL, signal.SIGSTOP, GIVES_UP], ids=["killed", "stopped", "gives up"]
)
@pytest.mark.parametrize("who", [0, 1], ids=["trainer", "worker"])
def test_a_fault_ends_the_round_of_the_others_in_time(who: int, fault: int):
    ends = run({who: fault}, GPU)
    for number, end in ends.items():
        assert end.error, number
        assert "bucket " in end.message
        if fault != signal.SIGSTOP:
            assert end.seconds < TIMEOUT_S, "noticed at once"
    if (
        fault == GIVES_UP
    ):  # torch counts a killed process among those that map the memory until the owner ends
        assert_ended_in_time_and_clean(ends)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_digests_and_checksums_of_a_gpu_are_those_of_a_cpu(dtype: torch.dtype):
    """In larger tiles, several of them here."""
    tensor = torch.randn(3000, 4100, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert digest(tensor.to(GPU)) == digest(tensor)
    words = torch.randint(
        -(2**62), 2**62, (130 * WORD_TILE + 17,), generator=torch.Generator().manual_seed(0)
    )
    assert int(checksum(words.to(GPU))) == int(checksum(words))


def test_a_tensor_is_cut_packed_checked_and_put_together_on_the_gpu():
    tensors = {"a": torch.randn(7, 5), "large": torch.randn(900, 333), "b": torch.randn(11)}
    specs = [TensorSpec(name, tuple(t.shape), "bfloat16") for name, t in tensors.items()]
    packer, unpacker = Packer((name, t.to(GPU)) for name, t in tensors.items()), Unpacker()
    received = {}
    for bucket in pack_into_buckets(specs, 1 << 16):
        buffer = torch.empty(bucket.size, dtype=torch.uint8, device=GPU)
        packer.fill(bucket, buffer)
        assert damaged(bucket, buffer) == []
        received |= dict(unpacker.tensors(bucket, buffer))
    assert all(torch.equal(received[name].cpu(), t.bfloat16()) for name, t in tensors.items())
