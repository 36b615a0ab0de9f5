"""The strategy is told where each optimizer step ends, full or not."""

from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.upstream.openrlhf.last_step import COMPLETES, PATCHES, marking_ends
from tests.unit.upstream.openrlhf.test_optimizer_step import in_windows


@given(st.integers(0, 12), st.integers(1, 5))
def test_a_window_ends_with_its_last_micro_batch_even_if_it_is_short(count, size):
    strategy = SimpleNamespace()
    ends = [
        getattr(strategy, COMPLETES)
        for _ in marking_ends(in_windows)(iter(range(count)), strategy, size, lambda item: item)
    ]
    assert ends == [(at + 1) % size == 0 or at + 1 == count for at in range(count)]
    if count:
        assert getattr(strategy, COMPLETES) is None, "dynamic batches end their steps themselves"


@pytest.mark.parametrize("role", ["actor", "critic"])
def test_a_rollouts_last_smaller_micro_batch_is_trained_on(role):
    (patch,) = (patch for patch in PATCHES if patch.target == f"openrlhf.trainer.ray.ppo_{role}")
    trainer = ModuleType(patch.target)
    trainer.DataLoader, trainer.iter_grad_accum_global_norm = torch.utils.data.DataLoader, in_windows
    patch.apply(trainer)
    batches = trainer.DataLoader(list(range(7)), batch_size=3, drop_last=True)
    assert [len(batch) for batch in batches] == [3, 3, 1]
