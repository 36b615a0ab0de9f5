"""The average of a model in bfloat16 is that of its float32 values, on one rank or in shards."""

from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from openrlhf_mtp.upstream.openrlhf.moving_average import PATCH

BETA, UPDATES = 0.992, 50


@pytest.fixture
def strategy():
    """OpenRLHF's strategy, as far as the patch replaces it."""
    module = ModuleType(PATCH.target)
    module.DeepspeedStrategy = type("DeepspeedStrategy", (), {"moving_average": None})
    PATCH.apply(module)
    assert PATCH.probe(module)
    return module.DeepspeedStrategy()


def layer(dtype=torch.bfloat16) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3, dtype=dtype)


def trained(strategy, model, kept) -> torch.Tensor:
    """Some updates of the weight with the average behind them; the average by its formula, in float64."""
    expected = kept.weight.detach().double()
    for _ in range(UPDATES):
        with torch.no_grad():
            model.weight.add_(0.125)
        strategy.moving_average(model, kept, BETA, "cuda")
        expected = BETA * expected + (1 - BETA) * model.weight.detach().double()
    return expected


def test_an_average_in_bfloat16_follows_the_model(strategy):
    model, kept = layer(), layer()
    start = kept.weight.detach().clone()
    expected = trained(strategy, model, kept)
    assert (expected - start.double()).min() > 0.5
    torch.testing.assert_close(kept.weight.double(), expected, rtol=2**-8, atol=0)


def test_what_is_not_trained_is_not_averaged(strategy):
    model, kept = layer(), layer()
    model.bias.requires_grad_(False)
    with torch.no_grad():
        model.bias.add_(1.0)
    before = kept.bias.detach().clone()
    trained(strategy, model, kept)
    assert torch.equal(kept.bias, before)


class Shard(nn.Parameter):
    """A parameter as ZeRO-3 leaves it: this rank's part beside the whole, which it may still hold."""

    def partition(self) -> None:
        self.ds_status = SimpleNamespace(name="NOT_AVAILABLE")


def sharded(values: torch.Tensor, status: str) -> nn.Module:
    model = nn.Module()
    model.weight = Shard(values.clone())
    model.weight.ds_tensor = values.flatten()[:2].clone()
    model.weight.ds_status = SimpleNamespace(name=status)
    return model


@pytest.mark.parametrize("status", ["AVAILABLE", "NOT_AVAILABLE"])
def test_a_rank_averages_its_own_shard_and_leaves_no_stale_whole(strategy, monkeypatch, status):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    start = torch.tensor([1.0, 2.0, 3.0, 4.0])
    model, kept = sharded(start + 1, "NOT_AVAILABLE"), sharded(start, status)
    strategy.moving_average(model, kept, 0.75, "cuda")
    torch.testing.assert_close(kept.weight.ds_tensor, torch.tensor([1.25, 2.25]))
    assert kept.weight.ds_status.name == "NOT_AVAILABLE"


def test_a_whole_model_is_averaged_by_the_rank_that_saves_it(strategy, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    model, kept = layer(), layer()
    before = kept.weight.detach().clone()
    trained(strategy, model, kept)
    assert torch.equal(kept.weight, before)
