import torch

from openrlhf_mtp.losses.kernels.projection import Scratch, project


def test_the_next_chunk_uses_the_memory_of_the_one_before() -> None:
    scratch, like = Scratch(), torch.zeros(())
    first = scratch.take(3, 4, like)
    smaller = scratch.take(2, 5, like)
    assert smaller.shape == (2, 5)
    assert smaller.data_ptr() == first.data_ptr()
    assert scratch.take(4, 4, like).shape == (4, 4)


def test_logits_are_divided_by_the_temperature_and_have_the_weights_type() -> None:
    states, weight = torch.randn(2, 3, dtype=torch.bfloat16), torch.randn(5, 3)
    logits = project(states, weight, 0.5, Scratch())
    torch.testing.assert_close(logits, states.float() @ weight.T / 0.5)
    assert project(torch.randn(2, 3), weight.double(), 1.0, Scratch()).dtype == torch.float64
