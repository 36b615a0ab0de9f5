"""What settings take, and how messages show a value: YAML's words, one line, never long."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.reading import values, yaml_text
from openrlhf_mtp.config.reading.values import SHOWN, UnfitError, WrittenFloat, WrittenInt, shown
from openrlhf_mtp.config.reading.variables import escape


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true"),
        ([None, False], "[null, false]"),
        ("it's", "'it''s'"),
        ("two\nlines", '"two\\nlines"'),
        ("\ud800", '"\\ud800"'),
        ({"kl": 0.3, "n": [1]}, "{kl: 0.3, n: [1]}"),
        (math.inf, ".inf"),
        (-math.inf, "-.inf"),
        (math.nan, ".nan"),
        (WrittenInt("007"), "007"),
        (WrittenFloat("1.10"), "1.10"),
        ([10**5000], "[a number of 5001 digits]"),
        ("x" * 10**6, "'" + "x" * (SHOWN - 1) + "… (1,000,002 characters)"),
    ],
)
def test_values_are_shown_as_yaml_writes_them(value, words):
    assert shown(value) == words


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=200)


@given(
    st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=200)
)
def test_whatever_is_shown_is_one_short_line_that_can_be_printed(value):
    words = shown(value)
    assert len(words) < 2 * SHOWN
    words.encode()


@given(st.none() | st.booleans() | st.integers(-999, 999) | st.floats() | st.text(max_size=6))
def test_a_short_value_in_a_list_is_shown_as_the_yaml_that_gives_it(value):
    read = yaml_text.load(f"a: {shown([escape(value) if isinstance(value, str) else value])}", "test")
    assert read["a"] == [value] or (isinstance(value, float) and math.isnan(read["a"][0]))


@pytest.mark.parametrize("value", [True, "3", "x", 1.5, math.inf, math.nan, [1], {"a": 1}])
def test_a_whole_number_is_nothing_else(value):
    with pytest.raises(UnfitError, match="a whole number"):
        values.whole_number(value)


@pytest.mark.parametrize("value", [True, "3", math.nan, [1], WrittenFloat("1e400"), 10**400], ids=str)
def test_a_number_is_nothing_else(value):
    with pytest.raises(UnfitError, match="a number"):
        values.number(value)


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, "\ud800", "a\0b"])
def test_text_is_nothing_else(value):
    with pytest.raises(UnfitError, match="text"):
        values.text(value)


@pytest.mark.parametrize("value", [0, 1, "true", "yes", None])
def test_a_switch_is_true_or_false(value):
    with pytest.raises(UnfitError, match="true or false"):
        values.switch(value)


def test_a_number_in_quotes_is_told_to_lose_them():
    with pytest.raises(UnfitError, match="a whole number, without quotes"):
        values.whole_number("3")


@given(st.integers(-(10**20), 10**20))
def test_whole_numbers_come_as_they_are(number):
    assert values.whole_number(WrittenInt(str(number))) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_as_they_are(number):
    assert values.number(WrittenFloat(json.dumps(number))) == number
