"""The head's moving average: the exponential one, exported in the head's place and taken out again."""

import torch

from openrlhf_mtp.training.head_average import HeadAverage
from tests.unit.training.test_head_trainer import trainer


def parameters(head):
    return torch.cat([p.detach().flatten() for p in head.parameters()])


def test_the_average_is_exponential_and_the_trained_head_comes_back():
    head = trainer().head
    average, expected = HeadAverage(head, beta=0.75), parameters(head).clone()
    for step in range(3):
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(float(step + 1))
        average.update()
        expected = 0.75 * expected + 0.25 * parameters(head)
    trained = parameters(head).clone()
    with average.in_place():
        torch.testing.assert_close(parameters(head), expected)
        assert not torch.equal(parameters(head), trained)
    assert torch.equal(parameters(head), trained)
