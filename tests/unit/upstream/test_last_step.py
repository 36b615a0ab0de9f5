"""The strategy is told where each optimizer step ends, full or not."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.upstream.last_step import COMPLETES, marking_ends
from tests.unit.upstream.test_optimizer_step import in_windows


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
