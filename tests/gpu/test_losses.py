"""The batch loss on a CUDA device against the CPU in float64, and its memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.mtp_loss import mtp_loss
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
    # 4,094 anchors x 3 depths x 32,768 entries: 1.5 GiB of float32 logits on each side, several copies without chunks
    depths, length, width, vocab = 3, 4096, 64, 32_768
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device="cuda", dtype=torch.bfloat16)

    states = [normal(1, length, width).requires_grad_() for _ in range(depths)]
    hidden, weight = normal(1, length, width), normal(vocab, width)
    tokens = torch.randint(vocab, (1, length), generator=generator, device="cuda")
    mask = torch.ones_like(tokens)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    mtp_loss(
        states, hidden, weight, tokens, mask, mask, objective=name, temperature=1.0, chunk_anchors=64
    ).loss_sum.backward()
    # a chunk's logits are 24 MiB in float32
    assert torch.cuda.max_memory_allocated() - before < 400 * 2**20
