"""Log-probs of tokens under the head, against plain autograd."""

import pytest
import torch
from torch.autograd import gradcheck

from openrlhf_mtp.losses.kernels.token_log_probs import token_log_probs
from tests.unit.losses.largest import Largest

ROWS, WIDTH, VOCAB = 7, 5, 11


def rows(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.randn(VOCAB, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    tokens = torch.randint(VOCAB, (ROWS,), generator=generator)
    return states.requires_grad_(), weight.requires_grad_(), tokens


def plain(states, weight, tokens, temperature):
    return (states @ weight.T / temperature).log_softmax(-1)[range(len(tokens)), tokens]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [1, 3 * VOCAB, 1000])
def test_values_and_both_gradients_are_those_of_plain_autograd(temperature, chunk):
    states, weight, tokens = rows()
    expected, got = (
        plain(states, weight, tokens, temperature),
        token_log_probs(states, weight, tokens, temperature, chunk_logits=chunk),
    )
    torch.testing.assert_close(got, expected)
    # any loss may come after it, also one that ties the rows together
    for loss in (torch.sum, lambda x: x.mean().exp(), lambda x: (x * x.detach().sigmoid()).sum()):
        for g, w in zip(
            torch.autograd.grad(loss(got), (states, weight), retain_graph=True),
            torch.autograd.grad(loss(expected), (states, weight), retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(g, w)


def test_no_operation_makes_more_logits_than_a_chunk_has():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(40, WIDTH, generator=generator).requires_grad_()
    weight = torch.randn(500, WIDTH, generator=generator).requires_grad_()
    tokens = torch.randint(500, (40,), generator=generator)
    with Largest() as largest:
        token_log_probs(states, weight, tokens, 0.7, chunk_logits=4 * 500).sum().backward()
    assert largest.numel <= max(4 * 500, weight.numel()) < 40 * 500 / 4


def test_the_gradient_equals_finite_differences():
    states, weight, tokens = rows()
    assert gradcheck(lambda s, w: token_log_probs(s, w, tokens, 0.7, chunk_logits=VOCAB), (states, weight))


def test_known_values_are_taken_over_and_the_gradient_stays():
    states, weight, tokens = rows()
    known = plain(states, weight, tokens, 1.0).detach()
    got = token_log_probs(states, weight, tokens, 1.0, known=known)
    assert got.detach().equal(known)
    torch.testing.assert_close(
        torch.autograd.grad(got.sum(), states),
        torch.autograd.grad(plain(states, weight, tokens, 1.0).sum(), states),
    )


def test_a_padded_output_head_gets_no_gradient_in_its_padding():
    states, weight, tokens = rows()
    padded = torch.cat([weight.detach(), torch.ones(3, WIDTH).double()]).requires_grad_()
    token_log_probs(states, padded[:VOCAB], tokens, 1.0).sum().backward()
    assert not padded.grad[VOCAB:].any()
    assert padded.grad[:VOCAB].any()


def test_no_rows_at_all_give_no_values_and_zero_gradients():
    states, weight, _ = rows()
    got = token_log_probs(states[:0], weight, torch.zeros(0, dtype=torch.long), 1.0)
    assert got.shape == (0,)
    (gradient,) = torch.autograd.grad(got.sum(), weight)
    assert not gradient.any()


def test_bfloat16_rows_are_scored_in_float32():
    states, weight, tokens = rows(torch.bfloat16)
    got = token_log_probs(states, weight, tokens, 1.0)
    assert got.dtype == torch.float32
    assert torch.autograd.grad(got.sum(), states)[0].dtype == torch.bfloat16


def test_backward_does_without_the_values_of_a_parameter_that_was_sharded_again():
    """ZeRO-3 leaves an empty tensor of it outside of its module's own passes."""
    states, weight, tokens = rows()
    expected = torch.autograd.grad(plain(states, weight, tokens, 0.7).sum(), (states, weight))
    sharded = torch.nn.Parameter(weight.detach().clone())
    for output_head in (sharded, sharded[:VOCAB]):
        got = token_log_probs(states, output_head, tokens, 0.7).sum()
        whole, sharded.data = sharded.data, torch.empty(0, dtype=torch.float64)
        for g, w in zip(torch.autograd.grad(got, (states, sharded)), expected, strict=True):
            torch.testing.assert_close(g, w)
        sharded.data = whole
