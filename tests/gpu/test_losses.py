"""The batch loss on a CUDA device against the CPU in float64, and its memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from openrlhf_mtp.bench.loss_forms import Workload, make_inputs
from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.mtp_loss import OutputHead, mtp_loss
from openrlhf_mtp.losses.targets import from_hidden
from tests.unit.losses.batches import random_batch


@pytest.mark.parametrize("name", OBJECTIVES)
def test_float32_on_cuda_equals_float64_on_the_cpu(name):
    exact, batch = random_batch(), random_batch(dtype=torch.float32, device="cuda")
    # sums of about 20 anchors with losses of size 10
    assert batch.loss(name).loss_sum.item() == pytest.approx(exact.loss(name).loss_sum.item(), rel=1e-4)
    for got, expected in zip(batch.states_gradient(name), exact.states_gradient(name), strict=True):
        torch.testing.assert_close(got.cpu().double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bfloat16_on_cuda_follows_float64_on_the_same_numbers(name):
    low = random_batch(dtype=torch.bfloat16, device="cuda")
    exact = replace(
        random_batch(),
        states=[z.detach().double().cpu().requires_grad_() for z in low.states],
        hidden=low.hidden.double().cpu(),
        output_weight=low.output_weight.double().cpu(),
    )
    # logits of size up to 30 are rounded to bf16: off by 0.06 each
    assert low.loss(name).loss_sum.item() == pytest.approx(exact.loss(name).loss_sum.item(), rel=0.02)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_logits_of_all_anchors_never_exist_at_once(name):
    # 4,096 anchors x 3 depths x 32,768 entries: 0.8 GiB of bf16 logits for the drafts alone
    workload = Workload(vocab=32_768, hidden=64, tokens=4096, dtype="bfloat16", device="cuda")
    inputs = make_inputs(workload)
    head = OutputHead.of(inputs.weight, 1.0, chunk_logits=64 * workload.depths * workload.vocab)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    targets = from_hidden(inputs.hidden, inputs.weight, 1.0)
    mtp_loss(inputs.states, inputs.anchors, targets, head, OBJECTIVES[name]).loss_sum.backward()
    # a chunk's logits are 12 MiB, its targets 4, and what is kept for each anchor 2 MiB a copy
    assert torch.cuda.max_memory_allocated() - before < 100 * 2**20
