"""The forms that `bench loss` compares compute the same; how fast they are is not tested here."""

from __future__ import annotations

import pytest
import torch

from openrlhf_mtp.bench.harness import UnavailableError
from openrlhf_mtp.bench.kernels import measure_kernels
from openrlhf_mtp.bench.loss_forms import COMPARABLE, FORMS, Workload, make_inputs

SMALL = Workload(vocab=60, hidden=16, tokens=20, depths=3, dtype="float64")


@pytest.mark.parametrize("objective", COMPARABLE)
def test_ours_and_plain_have_the_same_loss_and_gradient(objective: str) -> None:
    workload = Workload(**{**vars(SMALL), "objective": objective})
    losses, gradients = [], []
    for form in (FORMS["ours"], FORMS["plain"]):
        inputs = make_inputs(workload)
        loss = form(inputs, workload)
        loss.backward()
        losses.append(loss.item())
        gradients.append([z.grad for z in inputs.states])
        norm = torch.stack([z.grad.square().sum() for z in inputs.states]).sum().sqrt()
        assert inputs.gradient_norm() == pytest.approx(norm.item())
    assert losses[0] == pytest.approx(losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_workload_has_the_named_anchors_and_drafts_near_their_targets() -> None:
    inputs = make_inputs(SMALL)
    assert inputs.anchors.mask[:, -1].sum() == SMALL.tokens
    overlap = 1.0 - FORMS["ours"](inputs, Workload(**{**vars(SMALL), "objective": "e2e_tv"})).item()
    assert 0.1 < overlap < 0.9


def test_speculators_says_why_it_cannot_run_here() -> None:
    with pytest.raises(UnavailableError, match="needs a CUDA GPU"):
        FORMS["speculators"](make_inputs(SMALL), SMALL)


def test_the_kernels_speed_counts_three_passes_over_both_sides_and_a_copys_two() -> None:
    speed = measure_kernels(100, "float32", "cpu", repeats=1, logits=1000)
    assert (speed.vocab, speed.rows, speed.speculators_seconds) == (100, 10, None)
    assert speed.bytes_per_s * speed.seconds == pytest.approx(7 * 1000 * 4)
    assert speed.share == pytest.approx(speed.bytes_per_s / speed.copy_bytes_per_s)
