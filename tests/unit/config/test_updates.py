"""An episode's prompts all become rollouts, equal shares for the ranks, and optimizer steps."""

import math

from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.updates import Updates, data_parallel_ranks

COUNTS = st.integers(1, 40)
UPDATES = st.builds(Updates, COUNTS, st.integers(1, 8), COUNTS, st.integers(1, 6), st.integers(1, 3))


@given(UPDATES, st.integers(0, 200))
def test_every_prompt_is_in_one_rollout_and_only_the_last_is_smaller(updates, prompts):
    rollouts = updates.rollouts(prompts)
    assert sum(rollouts) == prompts * updates.samples_per_prompt
    full = updates.rollout_prompts * updates.samples_per_prompt
    assert all(size == full for size in rollouts[:-1])
    assert all(0 < size <= full for size in rollouts)


@given(UPDATES, st.integers(0, 400))
def test_fewer_samples_than_ranks_are_left_out_and_no_step_is_empty_or_too_large(updates, samples):
    trained, steps = updates.trained(samples), updates.steps(samples)
    assert trained % updates.ranks == 0
    assert 0 <= samples - trained < updates.ranks
    assert (steps == 0) == (trained == 0)
    per_pass = steps // updates.passes
    assert (per_pass - 1) * updates.batch < max(trained, 1) <= max(1, per_pass * updates.batch)


def test_the_left_over_rollout_of_eleven_prompts_is_a_step_of_its_own():
    updates = Updates(rollout_prompts=8, samples_per_prompt=4, batch=16, ranks=1)
    assert updates.rollouts(11) == [32, 12]
    assert updates.planned(11, episodes=2) == 2 * (2 + 1)


def test_nine_prompts_on_two_ranks_leave_a_step_of_four_samples():
    updates = Updates(rollout_prompts=8, samples_per_prompt=4, batch=16, ranks=2)
    assert [updates.trained(samples) for samples in updates.rollouts(9)] == [32, 4]


@given(st.lists(st.integers(0, 12), max_size=4))
def test_what_is_shared_out_for_all_models_is_shared_out_for_each(ranks):
    common = data_parallel_ranks(*ranks)
    assert all(common % max(1, count) == 0 for count in ranks)
    assert common <= math.prod(max(1, count) for count in ranks)
