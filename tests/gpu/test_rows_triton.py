"""The Triton kernels on a GPU: the cases of the CPU's kernels, offsets beyond 32 bits, and speed beside a copy."""

from __future__ import annotations

import pytest
import torch

from openrlhf_mtp.bench.harness import UnavailableError
from openrlhf_mtp.bench.kernels import VOCABULARIES, measure_kernels
from openrlhf_mtp.bench.loss_forms import speculators_tv
from openrlhf_mtp.losses.kernels.rows import RowGradients, row_gradient_, row_statistics
from tests.unit.losses.row_cases import cases, check, computed

CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_scalars_and_gradient_equal_the_formulas_in_float64(name: str) -> None:
    found = computed(CASES[name].to("cuda"))
    check(CASES[name], {field: value.cpu() for field, value in found.items()})


def test_a_row_that_starts_beyond_two_to_the_31_is_read_and_written_at_its_place() -> None:
    columns = 151_936
    rows = 2**31 // columns + 2
    generator = torch.Generator("cuda").manual_seed(0)
    draft = torch.zeros(rows, columns, device="cuda", dtype=torch.bfloat16)
    draft[-1] = 3.0 * torch.randn(columns, generator=generator, device="cuda")
    target = draft[-1:] + torch.randn(1, columns, generator=generator, device="cuda").bfloat16()
    shared = torch.zeros(rows, dtype=torch.long, device="cuda")
    p, q = target[0].float().softmax(-1), draft[-1].float().softmax(-1)
    scalars = row_statistics(draft, target, shared, shared)
    assert scalars.alpha[-1].item() == pytest.approx(torch.minimum(p, q).sum().item(), rel=1e-5)
    row_gradient_(draft, target, shared, shared, scalars, RowGradients(kl=torch.ones(rows, device="cuda")))
    torch.testing.assert_close(draft[-1].float(), q - p, rtol=2**-7, atol=1e-8)


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_the_kernels_reach_most_of_the_memorys_bandwidth(vocab: int) -> None:
    speed = measure_kernels(vocab, "bfloat16", "cuda", repeats=9)
    assert speed.share >= 0.7, speed


@pytest.mark.parametrize("vocab", VOCABULARIES)
def test_the_kernels_are_faster_than_speculators(vocab: int) -> None:
    try:
        speculators_tv("cuda")
    except UnavailableError as problem:
        pytest.skip(f"speculators: {problem}")
    speed = measure_kernels(vocab, "bfloat16", "cuda", repeats=9)
    assert speed.speculators_seconds is not None
    assert speed.seconds < speed.speculators_seconds, speed
