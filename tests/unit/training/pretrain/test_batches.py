"""Batches of the pre-RL stage: a step number is a data position, and every response is used once a pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.training.pretrain.batches import collate, step_indices, steps_per_epoch
from openrlhf_mtp.training.pretrain.responses import Response

sizes = st.integers(1, 60).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count)))


@given(sizes, st.integers(0, 3), st.integers(0, 1000))
def test_a_pass_uses_no_response_twice_and_leaves_out_less_than_a_batch(size, epoch, seed):
    count, batch_size = size
    per_epoch = steps_per_epoch(count, batch_size)
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    batches = [step_indices(step, count, batch_size, seed) for step in steps]
    assert all(len(batch) == batch_size for batch in batches)
    used = [index for batch in batches for index in batch]
    assert len(set(used)) == len(used)
    assert set(used) <= set(range(count))
    assert count - len(used) < batch_size


def test_a_resumed_run_sees_the_same_batches():
    straight = [step_indices(step, 50, 8, seed=3) for step in range(20)]
    resumed = [step_indices(step, 50, 8, seed=3) for step in range(11, 20)]
    assert straight[11:] == resumed


def test_passes_and_seeds_have_orders_of_their_own():
    first, second = step_indices(0, 50, 50, seed=3), step_indices(1, 50, 50, seed=3)
    other = step_indices(0, 50, 50, seed=7)
    assert sorted(first) == sorted(second) == sorted(other) == list(range(50))
    assert first != second
    assert first != other


def test_fewer_responses_than_a_batch_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"got 7 training responses.*batch_size = 8"):
        steps_per_epoch(7, 8)


ids = st.lists(st.integers(1, 99), min_size=1, max_size=7).map(tuple)


@given(st.lists(st.builds(Response, st.just(0), ids, ids), min_size=1, max_size=5))
def test_collate_keeps_every_token_and_marks_the_sampled_ones(responses):
    batch = collate(responses, pad_token_id=0)
    assert batch.sequences.shape == batch.attention_mask.shape == batch.action_mask.shape
    for row, response in enumerate(responses):
        present = batch.attention_mask[row].bool()
        assert tuple(batch.sequences[row][present].tolist()) == response.prompt_ids + response.response_ids
        assert tuple(batch.sequences[row][batch.action_mask[row]].tolist()) == response.response_ids
        assert present.sum() == present.nonzero().max() + 1, "padding must be on the right only"
        assert not (batch.action_mask[row] & ~present).any()
        assert (batch.sequences[row][~present] == 0).all()


def test_collate_of_one_response_without_padding():
    batch = collate([Response(0, (5, 6), (7, 8, 9))], pad_token_id=0)
    assert batch.sequences.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1]]
    assert batch.action_mask.tolist() == [[False, False, True, True, True]]
