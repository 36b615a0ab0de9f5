"""What a trainer's moments need by formula, against what their operations make."""

from __future__ import annotations

import pytest
import torch

from openrlhf_mtp.config.memory.trainer import log_prob_bytes
from openrlhf_mtp.losses.kernels.token_log_probs import token_log_probs
from tests.live_bytes import LiveBytes

ROWS, VOCAB, WIDTH = 512, 4096, 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_backward_of_the_joint_terms_log_probs_makes_what_the_formula_says(dtype, temperature):
    states = torch.randn(ROWS, WIDTH, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCAB, WIDTH, dtype=dtype, requires_grad=True)
    tokens, known = torch.zeros(ROWS, dtype=torch.long), torch.zeros(ROWS)
    values = token_log_probs(states, weight, tokens, temperature, known=known)
    with LiveBytes() as live:
        values.sum().backward()
    assert live.peak == pytest.approx(ROWS * VOCAB * log_prob_bytes(dtype.itemsize), rel=0.05)
