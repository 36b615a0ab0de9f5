"""Plain values mean what YAML 1.2 says, not what PyYAML's YAML 1.1 says."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openrlhf_mtp.config.reading.yaml_text import dump, load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("5E3", 5000.0),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("010", 10),
        ("true", True),
        ("~", None),
        ("'true'", "true"),
        (".inf", math.inf),
    ],
)
def test_plain_values(text, value):
    read = load(f"key: {text}", "test")["key"]
    assert read == value
    assert isinstance(read, type(value))
    assert isinstance(read, bool) is isinstance(value, bool)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
trees = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=["L"]), min_size=1),
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    max_size=5,
)


@example(tree={"x": ["a\x85b", "\u2028", "\u2029 "]})
@given(tree=trees)
def test_dumping_and_loading_changes_nothing(tree):
    assert load(dump(tree), "test") == tree
