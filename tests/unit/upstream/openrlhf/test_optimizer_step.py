"""An optimizer step's micro-batches are known at each of them, and OpenRLHF's normalizers stay what they are."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.upstream.openrlhf.optimizer_step import StepInfo, dynamic_window, with_windows


def in_windows(items, strategy, size, mask_fn):
    """As OpenRLHF does it: fetch a whole window, then yield it with a normalizer of all of it."""
    window = []
    for item in items:
        window.append(item)
        if len(window) == size:
            yield from ((each, {"batch_num_tokens": sum(map(mask_fn, window))}) for each in window)
            window = []
    if window:
        yield from ((each, {"batch_num_tokens": sum(map(mask_fn, window))}) for each in window)


@given(st.integers(0, 12), st.integers(1, 5))
def test_each_micro_batch_knows_its_optimizer_step(count, size):
    items = list(range(count))
    got = list(with_windows(in_windows)(iter(items), None, size, lambda item: item))
    plain = list(in_windows(iter(items), None, size, lambda item: item))
    assert [(item, dict(info)) for item, info in got] == plain
    for item, info in got:
        start = item // size * size
        assert info.micro_batches == items[start : start + size]
        assert info.micro_batch_index == item - start


def test_the_info_is_passed_on_as_openrlhfs_keyword_arguments():
    info = StepInfo({"dp_size": 2}, ["a"], 0)
    assert dict(**info) == {"dp_size": 2}


@pytest.mark.parametrize(("step", "window", "position"), [(0, [0], 0), (1, [1, 2, 3], 0), (3, [1, 2, 3], 2)])
def test_dynamic_batches_end_their_step_where_the_buffer_says(step, window, position):
    class Buffer(SimpleNamespace):
        def __getitem__(self, n):
            return n

    buffer = Buffer(dynamic_optimizer_step=[1, 0, 0, 1], collate_fn=lambda batch: batch[0])
    info = dynamic_window(buffer, step, {})
    assert (info.micro_batches, info.micro_batch_index) == (window, position)


def test_dynamic_batches_of_a_step_are_put_together_once():
    collated = []

    class Buffer(SimpleNamespace):
        def __getitem__(self, n):
            return n

    def collate(batch):
        collated.extend(batch)
        return batch[0]

    buffer = Buffer(dynamic_optimizer_step=[0, 0, 1, 0, 1], collate_fn=collate)
    window = None
    for step in range(5):
        window = dynamic_window(buffer, step, {}, window)
        assert window.micro_batches == ([0, 1, 2] if step < 3 else [3, 4])
    assert collated == [0, 1, 2, 3, 4]
