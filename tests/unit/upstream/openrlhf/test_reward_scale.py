"""A loaded reward model has the mean and the standard deviation of its configuration."""

from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from openrlhf_mtp.upstream.openrlhf.reward_scale import PATCH


def loaded(**config: float) -> nn.Module:
    """A reward model whose buffers hold what transformers left in them."""
    model = nn.Module()
    model.config = SimpleNamespace(**config)
    for name in ("mean", "std"):
        model.register_buffer(name, torch.full((1,), 1e30), persistent=False)
    return model


@pytest.mark.parametrize(
    ("config", "expected"), [({"mean": 0.5, "std": 2.0}, (0.5, 2.0)), ({}, (0.0, 1.0))], ids=["given", "none"]
)
def test_mean_and_deviation_are_the_configurations(config, expected):
    module = ModuleType(PATCH.target)
    module.get_llm_for_sequence_regression = lambda *_args, **_kwargs: loaded(**config)
    PATCH.apply(module)
    assert PATCH.probe(module)
    model = module.get_llm_for_sequence_regression("folder", "reward")
    assert (model.mean.item(), model.std.item()) == expected
