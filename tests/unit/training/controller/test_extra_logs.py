"""Extra logs of rewards: what can be batched is kept, the rest is named, and nothing of it ends a run."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.training.controller.extra_logs import drop_uneven, usable

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=3),
    st.floats(width=32).map(torch.tensor),
    st.lists(st.floats(width=32), max_size=2).map(torch.tensor),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=2),
)


def test_one_number_is_kept_however_it_is_wrapped():
    logs = {"a": 1, "b": True, "c": [0.5], "d": torch.tensor([[2.0]]), "e": torch.tensor(3)}
    assert usable(logs) == ({"a": 1.0, "b": 1.0, "c": 0.5, "d": 2.0, "e": 3.0}, {})


def test_what_cannot_be_logged_is_named_and_the_rest_kept():
    kept, problems = usable(
        {"verdict": "parsed", "two": [1.0, 2.0], "nan": math.nan, "reward": 1.0, "good": 1.0}
    )
    assert kept == {"good": 1.0}
    assert problems["verdict"] == "extra_logs['verdict'] is 'parsed', expected one finite number"
    assert problems["reward"].endswith("has a name that OpenRLHF uses itself, expected another")
    assert problems.keys() == {"verdict", "two", "nan", "reward"}


def test_logs_that_are_no_dictionary_are_left_out():
    kept, problems = usable([1.0])
    assert kept == {}
    assert problems[""] == "extra_logs is [1.0], expected a dictionary of numbers"


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
def test_every_entry_is_kept_as_a_finite_number_or_named(logs):
    kept, problems = usable(logs)
    assert kept.keys() | problems.keys() == set(logs)
    assert not kept.keys() & problems.keys()
    assert all(type(value) is float and math.isfinite(value) for value in kept.values())


def test_a_key_that_some_responses_lack_is_removed_from_all_and_counted():
    infos = [{"reward": 1.0, "length": 2.0, "right": 1.0}, {"reward": 0.0, "length": 3.0}]
    problems = drop_uneven(infos)
    assert infos == [{"reward": 1.0, "length": 2.0}, {"reward": 0.0, "length": 3.0}]
    assert problems == {"right": "extra_logs['right'] came with 1 of 2 responses, expected with all of them"}


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.floats(allow_nan=False), max_size=4), max_size=5))
def test_afterwards_all_have_the_same_keys_and_only_uneven_ones_went(infos):
    before = [dict(info) for info in infos]
    problems = drop_uneven(infos)
    for old, new in zip(before, infos, strict=True):
        assert new == {key: value for key, value in old.items() if key not in problems}
    assert len({frozenset(info) for info in infos}) <= 1
