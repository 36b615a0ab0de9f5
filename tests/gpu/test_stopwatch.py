"""On a GPU the head is charged with its own work, not with what the policy had queued before it."""

import time

import torch

from openrlhf_mtp.training.stopwatch import Stopwatch


def test_work_that_was_queued_before_is_not_charged():
    matrix = torch.randn(4096, 4096, device="cuda")
    for _ in range(3):  # warm up
        matrix @ matrix
    torch.cuda.synchronize()
    watch, began = Stopwatch(), time.perf_counter()
    for _ in range(200):
        matrix @ matrix
    with watch.running():
        small = (matrix[:64, :64] @ matrix[:64, :64]).sum()
        float(small)  # waits for everything
    waited = time.perf_counter() - began
    assert watch.read() < 0.2 * waited
